"""SAL-T's attention with convolved logits."""
