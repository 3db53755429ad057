/**
 * Disks that take over what the one before them held: for rebinds between media of their own, as a live migration of
 * storage does them. The copy is made while requests are held, after the old medium was drained and flushed.
 */
const { HostVector } = await import(new URL('memory/io-vector.js', import.meta.resolve('vivarium')));

const MiB = 1024 * 1024;
const ended = (start) =>
  new Promise((resolve, reject) =>
    start((error) => (error === undefined ? resolve() : reject(new Error(error.message)))),
  );

/** For one device: gives sources whose backends copy from the one that the device has at the time. */
export function movingDisks() {
  let current;
  return (source) => ({
    ...source,
    open: async (context) => {
      const backend = await source.open(context);
      const before = backend.activate?.bind(backend);
      current ??= backend;
      backend.activate = async () => {
        await before?.();
        await copyAll(current, backend);
        current = backend;
      };
      return backend;
    },
  });
}

async function copyAll(from, to) {
  const { sizeBytes } = from.geometry;
  for (let offset = 0; offset < sizeBytes; offset += MiB) {
    const data = new HostVector(new Uint8Array(Math.min(MiB, sizeBytes - offset)));
    await ended((done) => from.read(offset, data, done));
    await ended((done) => to.write(offset, data, done));
  }
  // What the guest has flushed is on the old medium, and has to be as safe on the new one.
  if (to.flush) await ended((done) => to.flush(done));
}
