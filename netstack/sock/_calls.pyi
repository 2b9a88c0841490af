from netstack._net import Net
from netstack.sock._socket import Socket

def sockets(net: Net) -> list[Socket]: ...
