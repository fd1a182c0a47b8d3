"""Stands between the scheduler and the master, and behaves as a bad network or a bad master.

`python bad_wire.py PORT MASTER_PORT FILE`: how it behaves is the word in FILE, looked at again and
again. It prints that word each time that somebody has met with it. Standard library only.
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

BLOCK = 65536
LOOK_EVERY_S = 0.02
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
#: Words that end the connections which are open when they are first seen.
ENDING = ("refuse", "503")


class Wire:
    """Its moods: `pass`, `refuse`, `503`, `hang`, `half` an answer, `deaf`: answers are lost."""

    def __init__(self, master_port: int, file: Path) -> None:
        self._master_port = master_port
        self._file = file
        self._writers: set[asyncio.StreamWriter] = set()
        self.mood = "pass"

    async def look(self) -> None:
        while True:
            with suppress(OSError):
                mood = self._file.read_text() or "pass"
                if mood != self.mood:
                    # What hung or was not heard is not made good for by what comes later.
                    ends = mood in ENDING or self.mood in ("hang", "deaf")
                    self.mood = mood
                    if ends:
                        self._end_all()
            await asyncio.sleep(LOOK_EVERY_S)

    def _end_all(self) -> None:
        for writer in self._writers:
            writer.close()

    def _met(self) -> None:
        print(self.mood, flush=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mood in ENDING:
            self._met()
            if self.mood == "503":
                await reader.read(BLOCK)
                writer.write(UNAVAILABLE)
            writer.close()
            return
        try:
            theirs = await asyncio.open_connection("127.0.0.1", self._master_port)
        except OSError:
            writer.close()
            return
        both = {writer, theirs[1]}
        self._writers |= both
        await asyncio.gather(
            self._copy(reader, theirs[1], asked=True), self._copy(theirs[0], writer, asked=False)
        )
        self._writers -= both

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asked: bool
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while block := await reader.read(BLOCK):
                if self.mood == "hang" or (self.mood == "deaf" and not asked):
                    self._met()
                    continue
                half = self.mood == "half" and not asked
                writer.write(block[: len(block) // 2] if half else block)
                await writer.drain()
                if half:
                    self._met()
                    break
        writer.close()


async def main(port: int, master_port: int, file: Path) -> None:
    wire = Wire(master_port, file)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", port)
    async with server:
        await wire.look()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
