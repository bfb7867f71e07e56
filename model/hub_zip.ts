/**
 * Streams one member out of a zip archive on disk (a Python wheel is one). Stored and deflated members; archives over
 * 4 GiB are not needed here.
 *
 * @module
 */
import { HubError } from "./hub_errors.ts";

const END = 0x06054b50, CENTRAL = 0x02014b50, LOCAL = 0x04034b50;
const MAX_DIRECTORY = 16 << 20;

/** The bytes of `member`, inflated as they are read; the archive is closed with the stream. Throws `HubError`. */
export async function* readMember(archive: string, member: string): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  using file = Deno.openSync(archive);
  const size = file.statSync().size;
  const fail = (state: string) => new HubError(`Cannot pull model: "${archive}" ${state}`);
  const at = (offset: number, length: number): DataView<ArrayBuffer> => {
    if (offset < 0 || length < 0 || offset + length > size) throw fail("is cut off");
    const bytes = new Uint8Array(length);
    file.seekSync(offset, Deno.SeekMode.Start);
    for (let done = 0; done < length;) done += file.readSync(bytes.subarray(done)) ?? length;
    return new DataView(bytes.buffer);
  };

  // The end record lies in the last 22 bytes, before a comment of at most 65535.
  const tailSize = Math.min(size, 22 + 65535);
  const tail = at(size - tailSize, tailSize);
  let end = tailSize - 22;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) throw fail("is no zip archive");
  const count = tail.getUint16(end + 10, true);
  const directorySize = tail.getUint32(end + 12, true);
  if (directorySize > MAX_DIRECTORY) throw fail("has too long a directory");
  const directory = at(tail.getUint32(end + 16, true), directorySize);

  for (let i = 0, p = 0; i < count; i++) {
    if (p + 46 > directorySize || directory.getUint32(p, true) !== CENTRAL) throw fail("has a damaged directory");
    const nameLength = directory.getUint16(p + 28, true);
    const next = p + 46 + nameLength + directory.getUint16(p + 30, true) + directory.getUint16(p + 32, true);
    if (next > directorySize) throw fail("has a damaged directory");
    const name = new TextDecoder().decode(new Uint8Array(directory.buffer, p + 46, nameLength));
    if (name === member) {
      const local = at(directory.getUint32(p + 42, true), 30);
      if (local.getUint32(0, true) !== LOCAL) throw fail("has a damaged directory");
      const start = directory.getUint32(p + 42, true) + 30 + local.getUint16(26, true) + local.getUint16(28, true);
      const raw = ReadableStream.from(slice(at, start, directory.getUint32(p + 20, true)));
      const method = directory.getUint16(p + 10, true);
      if (method !== 0 && method !== 8) throw fail(`packs "${member}" by method ${method}`);
      yield* method === 0 ? raw : raw.pipeThrough(new DecompressionStream("deflate-raw"));
      return;
    }
    p = next;
  }
  throw fail(`holds no "${member}"`);
}

function* slice(
  at: (offset: number, length: number) => DataView<ArrayBuffer>,
  start: number,
  length: number,
): Generator<Uint8Array<ArrayBuffer>> {
  const step = 1 << 20;
  for (let done = 0; done < length; done += step) {
    yield new Uint8Array(at(start + done, Math.min(step, length - done)).buffer);
  }
}
