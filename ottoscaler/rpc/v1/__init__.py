"""What goes over the wire: the .proto files, and beside each the code made from it (`make proto`)."""
