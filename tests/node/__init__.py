"""The handler's side of the world: an otto-handler in Node, which knows our .proto files and nothing else of ours."""
