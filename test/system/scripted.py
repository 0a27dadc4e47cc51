"""An SMTP server without manners: each session follows a script, a Python function over its socket."""
import socket
import threading

PATIENCE = 30


class Session:
    """What a script has in its hands. Reading past the end, or from a peer that has gone, ends the script."""

    def __init__(self, sock, number, server):
        self.sock, self.number, self.server = sock, number, server
        self.left = b""

    def say(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def line(self):
        while b"\n" not in self.left:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.left += data
        line, self.left = self.left.split(b"\n", 1)
        return line.rstrip(b"\r")

    def content(self):
        """The message up to the final dot."""
        lines = []
        while (line := self.line()) != b".":
            lines.append(line)
        return lines

    def until_closed(self):
        """Whatever the client does, nothing is said."""
        while self.sock.recv(65536):
            pass
        raise EOFError

    def serve(self, answers=None):
        """A good server, but for `answers`: verb -> bytes to say instead, or a function of the session. "." is the end of
        the message. Takes messages until QUIT."""
        answers = answers or {}
        recipients = []
        self.reply("BANNER", b"220 scripted.test ESMTP\r\n", answers)
        while True:
            command = self.line()
            verb = command.split(b" ")[0].split(b":")[0].upper().decode("latin-1")
            self.server.commands.append(command)
            if verb == "RCPT":
                recipients.append(command)
            good = {"EHLO": b"250-scripted.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n", "DATA": b"354 go\r\n",
                    "QUIT": b"221 bye\r\n"}.get(verb, b"250 2.0.0 ok\r\n")
            self.reply(verb, good, answers)
            if verb == "QUIT":
                return
            if verb == "DATA" and "DATA" not in answers:
                content = self.content()
                if "." not in answers:  # before the reply: who hears of it may look
                    self.server.taken.append(content)
                self.reply(".", b"250 2.0.0 taken\r\n", answers)

    def reply(self, verb, good, answers):
        answer = answers.get(verb, good)
        if callable(answer):
            answer(self)
        else:
            self.say(answer)


class Scripted:
    """Listens on a free port (or the given one) of `host`; `script(session)` is called for each connection."""

    def __init__(self, script, host="127.0.0.1", port=0):
        self.script, self.commands, self.taken, self.sessions = script, [], [], 0
        self.socks = []
        self.listener = socket.create_server((host, port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            self.sessions += 1
            self.socks.append(sock)
            threading.Thread(target=self._run, args=(sock, self.sessions), daemon=True).start()

    def _run(self, sock, number):
        with sock:
            try:
                self.script(Session(sock, number, self))
            except (EOFError, OSError):
                pass

    def stop(self):
        self.listener.close()
        for sock in self.socks:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
