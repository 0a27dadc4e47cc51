"""The journal as the header comment of queue/journal.h tells it, read by a reader that knows nothing else."""
import email.policy
import os
import re
import struct

import xxhash

from conftest import FAST_RETRY, message, relayhost

BLOCK, START = 4096, 8192
DATA, MESSAGE, RESULT, HOLD, RELEASE, DONE, MOVE, MARK, SEAL, WARNED, DELETE = range(1, 12)
NAMES = ["", "DATA", "MESSAGE", "RESULT", "HOLD", "RELEASE", "DONE", "MOVE", "MARK", "SEAL", "WARNED", "DELETE"]
DEFERRED = 2  # base/vocabulary.h: the only outcome that is not final


def round_up(number, unit):
    return (number + unit - 1) // unit * unit


def id_text(number):
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    return "".join(digits[number >> 5 * at & 31] for at in reversed(range(13)))


class Record:
    def __init__(self, segment, offset, fields, payload):
        _, _, self.length, self.type, self.flags, self.index, self.id, mark_segment, mark_at8 = fields
        self.segment, self.offset, self.payload = segment.number, offset, payload
        self.watermark = (mark_segment, mark_at8 * 8)

    def fields(self):
        return list(fields_of(self.payload))


def fields_of(payload):
    """Tag, length as LEB128, value."""
    at = 0
    while at < len(payload):
        tag, length, shift = payload[at], 0, 0
        at += 1
        while True:
            octet = payload[at]
            at += 1
            length |= (octet & 0x7F) << shift
            shift += 7
            if not octet & 0x80:
                break
        assert at + length <= len(payload)
        yield tag, payload[at:at + length]
        at += length


class Segment:
    def __init__(self, path):
        self.bytes = path.read_bytes()
        self.number = 0
        for copy in range(2):
            header = self.bytes[copy * BLOCK:copy * BLOCK + 128]
            if len(header) < 128 or header[:8] != b"RELAYDJ\n":
                continue
            numbers = struct.unpack("<HHI14Q", header[8:])
            if numbers[-1] != xxhash.xxh3_64_intdigest(header[:120], seed=0x52454C415944) or numbers[2] != copy:
                continue
            assert numbers[0] == 1 and numbers[1] == 128
            (self.number, self.nonce, self.previous, self.cut, self.first, self.floor, self.spool, self.created, self.size,
             self.previous_nonce, self.previous_previous, self.previous_cut, zero) = numbers[3:16]
            assert zero == 0

    def sum(self, octets, offset, more=0):
        return xxhash.xxh3_64_intdigest(octets, seed=(self.nonce + offset + more) % 2**64) & 0xFFFFFFFF

    def record(self, offset):
        head = self.bytes[offset:offset + 32]
        if len(head) < 32:
            return None
        fields = struct.unpack("<IIIBBHQII", head)
        payload = self.bytes[offset + 32:offset + 32 + fields[2]]
        if fields[3] == 0 or fields[0] != self.sum(head[4:], offset) or len(payload) < fields[2] or \
           fields[1] != self.sum(payload, offset, 0x9E3779B97F4A7C15):
            return None
        return Record(self, offset, fields, payload)

    def records(self, end):
        """All sound ones in order, to the offset `end`."""
        offset = START
        while offset + 32 <= end:
            record = self.record(offset)
            if not record:
                used = re.compile(rb"[^\0]").search(self.bytes, offset + 8, end)
                offset = used.start() // 8 * 8 if used else end
                continue
            yield record
            offset = round_up(offset + 32 + record.length, 8)
            if record.type == MARK:
                offset = round_up(offset, BLOCK)


class Mail:
    def __init__(self, record):
        self.recipients, self.state, self.bits, self.body, self.texts = [], {}, 0, None, {}
        for tag, value in record.fields():
            if tag == 0x81:
                (self.arrived, self.expires, self.octets, self.hash, self.pieces, count, self.flags,
                 *_) = struct.unpack("<QQQQIII4B", value)
            elif tag == 0x8D:
                self.recipients.append(dict(fields_of(value)))
            elif tag == 0x8E:
                self.body = value
            elif tag == 0x8F:
                self.state[struct.unpack("<H", value[:2])[0]] = result_of(value[2:])
            elif tag == 0x90:
                self.bits = value[0]
            else:
                self.texts[tag] = value
        assert len(self.recipients) == count


def result_of(payload):
    fields = dict(fields_of(payload))
    next_attempt, attempts, code, kind, *_ = struct.unpack("<QIHBBBB2x", fields[0x81])
    return {"next": next_attempt, "attempts": attempts, "code": code, "kind": kind, "text": fields.get(0x04, b"")}


class Journal:
    """The segments by number, and the mail that is there."""

    def __init__(self, spool):
        found = [Segment(path) for path in sorted((spool / "journal").iterdir())]
        self.segments = {segment.number: segment for segment in found if segment.number}
        self.mail, self.pieces = {}, {}
        for segment, end in self.chain():
            for record in segment.records(end):
                self.apply(record)
        for mail in self.mail.values():
            assert not mail.bits & 4

    def chain(self):
        segment = self.segments[max(self.segments)]
        chain, end, first = [], len(segment.bytes), segment.first
        for record in segment.records(end):
            if record.type == MARK:
                first = max(first, struct.unpack("<QQQ", record.payload)[1])
        while True:
            chain.append((segment, end))
            if segment.previous == 0 or segment.previous < first:
                return reversed(chain)
            segment, end = self.segments[segment.previous], segment.cut

    def apply(self, record):
        mail = self.mail.get(record.id)
        if record.type == DATA:
            self.pieces[record.id, record.index] = record.payload
        elif record.type in (MESSAGE, MOVE):
            self.mail[record.id] = Mail(record)
        elif record.type == DONE:
            self.mail.pop(record.id, None)
        elif mail and record.type == RESULT:
            mail.state[record.index] = result_of(record.payload)
        elif mail and record.type in (HOLD, RELEASE, WARNED, DELETE):
            bit, is_set = {HOLD: (1, True), RELEASE: (1, False), WARNED: (2, True), DELETE: (4, True)}[record.type]
            mail.bits = mail.bits | bit if is_set else mail.bits & ~bit

    def content(self, number):
        mail = self.mail[number]
        body = mail.body
        if mail.pieces:
            body = b"".join(self.pieces[number, index] for index in range(mail.pieces))
        assert len(body) == mail.octets and xxhash.xxh3_64_intdigest(body) == mail.hash
        return mail.texts.get(0x8C, b"") + body

    def lines(self):
        """What a dump tells of each record of each segment, whether it counts or not."""
        for _, segment in sorted(self.segments.items()):
            for record in segment.records(len(segment.bytes)):
                yield (segment.number, record.offset, NAMES[record.type], id_text(record.id) if record.id else "-",
                       record.length, *record.watermark)


def dumped(text):
    segment = None
    for line in text.splitlines():
        if begins := re.match(r"segment (\d+) ", line):
            segment = int(begins[1])
        elif record := re.match(r" +(\d+) ([A-Z]+) +(\S+) (\d+) octets, synced to (\d+):(\d+)", line):
            offset, kind, name, length, mark_segment, mark = record.groups()
            yield segment, int(offset), kind, name, int(length), int(mark_segment), int(mark)


def submit(daemon, subject, size):
    """The id that the 250 named."""
    with daemon.smtp() as client:
        client.ehlo()
        mail = message(subject, body=("x" * 70 + "\n") * (size // 71))
        client.mail("app@example.org")
        for recipient in ("one@example.net", "two@example.net"):
            client.rcpt(recipient)
        code, reply = client.data(mail.as_bytes(policy=email.policy.SMTP))
        assert code == 250
        return re.search(rb"queued as (\w+)", reply)[1].decode()


def fill(daemon):
    """Mail of all sizes that waits, is held, was deleted; and two restarts, one of them hard."""
    ids = {f"size {size}": submit(daemon, f"size {size}", size) for size in (10, 3000, 60000, 70000, 400000)}
    daemon.wait_log("deferred", count=2)
    daemon.ctl("hold", ids["size 3000"])
    daemon.ctl("delete", submit(daemon, "gone", 100000))
    daemon.kill()
    daemon.start()
    ids["later"] = submit(daemon, "later", 130000)
    daemon.stop()
    return ids


def test_a_reader_made_from_the_header_comment_finds_what_is_there(relayd, upstream):
    upstream.stop()
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY)
    ids = fill(daemon)
    journal = Journal(daemon.spool)
    assert {id_text(number) for number in journal.mail} == set(ids.values())
    for number, mail in journal.mail.items():
        subject = next(subject for subject, name in ids.items() if name == id_text(number))
        assert f"Subject: {subject}\r\n".encode() in journal.content(number)
        assert b"Received: " in mail.texts[0x8C] and mail.texts[0x02] == b"app@example.org"
        assert [recipient[0x81] for recipient in mail.recipients] == [b"one@example.net", b"two@example.net"]
        assert bool(mail.bits & 1) == (subject == "size 3000")
        assert all(result["kind"] == DEFERRED and result["attempts"] > 0 for result in mail.state.values())
    assert any(mail.state for mail in journal.mail.values())
    text = daemon.ctl("journal", "dump", daemon.spool).stdout
    assert list(dumped(text)) == list(journal.lines())
    assert {kind for _, _, kind, *_ in journal.lines()} >= {"DATA", "MESSAGE", "RESULT", "HOLD", "DONE", "MARK"}


def test_damage_stands_in_the_dump_and_the_rest_is_read_all_the_same(relayd, upstream):
    upstream.stop()
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY)
    fill(daemon)
    lines = list(Journal(daemon.spool).lines())
    hit = [line for line in lines if line[2] == "MESSAGE"][1::2]
    for path in (daemon.spool / "journal").iterdir():
        segment = Segment(path)
        with open(path, "r+b") as file:
            for line in hit:
                if line[0] == segment.number:
                    os.pwrite(file.fileno(), b"\xff", line[1] + 40)
    rest = list(Journal(daemon.spool).lines())
    assert rest == [line for line in lines if line not in hit]
    text = daemon.ctl("journal", "dump", daemon.spool).stdout
    assert list(dumped(text)) == rest
    assert len(re.findall(r"^! .*damaged", text, re.M)) == len(hit)
    told = daemon.ctl("verify", daemon.spool, check=False)
    assert told.returncode == 1 and "DAMAGED" in told.stdout
    for line in hit:
        assert line[3] in told.stdout


def as_of_a_newer_version(path):
    """Its headers, sound, of version 2."""
    with open(path, "r+b") as file:
        for copy in range(2):
            header = bytearray(os.pread(file.fileno(), 120, copy * BLOCK))
            header[8:10] = struct.pack("<H", 2)
            checksum = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(header), seed=0x52454C415944))
            os.pwrite(file.fileno(), bytes(header) + checksum, copy * BLOCK)


def test_a_newer_spool_is_refused_and_left_as_it_is(relayd, upstream):
    upstream.stop()
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY)
    submit(daemon, "newer", 100)
    daemon.stop()
    segments = [path for path in (daemon.spool / "journal").iterdir() if Segment(path).number]
    as_of_a_newer_version(max(segments, key=lambda path: Segment(path).number))
    before = {path.name: path.read_bytes() for path in (daemon.spool / "journal").iterdir()}
    daemon.spawn()
    assert daemon.wait_exit() == 78
    assert re.search(r"journal/\S+ was written by a newer relayd", "\n".join(daemon.lines))
    for command in (("verify",), ("journal", "dump")):
        told = daemon.ctl(*command, daemon.spool, check=False)
        assert told.returncode == 1 and "newer relayd" in told.stderr
    assert {path.name: path.read_bytes() for path in (daemon.spool / "journal").iterdir()} == before
