"""The command line's parts; :mod:`softmaxes.__main__` puts them together."""
