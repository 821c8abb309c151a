"""Videos that programs draw: for the demo and the tests."""
