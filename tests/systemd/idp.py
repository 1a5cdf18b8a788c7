"""An identity provider that knows one thing: a new token, good for an hour, for whoever asks.

Arguments: the port on loopback, and a file that counts the requests.
"""

import socket
import sys

port, counts = int(sys.argv[1]), sys.argv[2]
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", port))
listener.listen(64)
asked = 0
while True:
    stream, _ = listener.accept()
    with stream:
        stream.settimeout(5)
        try:
            text = b""
            while b"\r\n\r\n" not in text:
                part = stream.recv(65536)
                if not part:
                    break
                text += part
            asked += 1
            with open(counts, "w") as file:
                file.write(str(asked))
            body = f'{{"access_token":"token-{asked}","token_type":"Bearer","expires_in":3600}}'
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            stream.sendall((head + body).encode())
        except OSError:
            pass
