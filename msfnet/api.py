"""The public functions of the package, as keyword functions over the packages below; no logic."""
