"""Jets: generation, files, order and input grid."""
