"""A wire between two network interfaces, with a delay and a rate, where the kernel has no netem: wire.py A B MS MBIT.

It carries frames as they are, with the header that says which checksums and cuts are still to be made (PACKET_VNET_HDR,
packet(7)). Each direction is a thread that receives and one that sends when the time of a frame has come.
"""

import queue
import socket
import sys
import threading
import time

EVERY_PROTOCOL, OUTGOING = 3, 4  # ETH_P_ALL, PACKET_OUTGOING
SOL_PACKET, VNET_HEADER = 263, 15
LONGEST = 1 << 17


def end_of(name: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
    end.setsockopt(SOL_PACKET, VNET_HEADER, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    end.bind((name, 0))
    return end


def carry(one: socket.socket, other: socket.socket, delay: float, rate: float) -> None:
    """Carry frames from one end to the other: a frame takes its bytes / rate, then the delay."""
    frames: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def send() -> None:
        while True:
            due, frame = frames.get()
            time.sleep(max(due - time.monotonic(), 0))
            other.send(frame)

    threading.Thread(target=send, daemon=True).start()
    free = 0.0
    while True:
        frame, address = one.recvfrom(LONGEST)
        if address[2] != OUTGOING:
            free = max(free, time.monotonic()) + len(frame) / rate
            frames.put((free + delay, frame))


if __name__ == "__main__":
    a, b = map(end_of, sys.argv[1:3])
    delay, rate = float(sys.argv[3]) / 1e3, float(sys.argv[4]) * 1e6 / 8
    threading.Thread(target=carry, args=(a, b, delay, rate), daemon=True).start()
    print("ready", flush=True)
    carry(b, a, delay, rate)
