"""The gRPC door: how otto-handler asks for workers, watches them and runs pipelines.

v1/       the .proto files and the code made from them (`make proto`)
door      what the door asks of the service: plain records, no word of gRPC
server    serving: pools of threads, health, reflection, the drain
"""
