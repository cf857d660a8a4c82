"""Tools for the documentation: run what its pages print, compare the output, write it anew."""
