"""What every room needs: files, processes, paths, keys."""
