"""The command `salt-hls`. Only this room prints."""
