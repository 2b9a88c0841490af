from netstack._net import Net
from netstack._skb import SkBuff

def gro_split(skb: SkBuff, net: Net) -> list[SkBuff]: ...
