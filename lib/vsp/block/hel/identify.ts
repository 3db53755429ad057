/**
 * The serial number that a guest sees: what the caller fixed, else the medium's own, else one made of the device's id.
 * An id of at most 20 printable ASCII characters is the serial itself, so that the disk 'root' is
 * /dev/disk/by-id/virtio-root in a Linux guest, before and after a rebind or a restore.
 */
import { createHash } from 'node:crypto';

/** Length of the field in virtio 1.2, 5.2.6 (VIRTIO_BLK_T_GET_ID). */
const SERIAL_CHARACTERS = 20;
const HASH_CHARACTERS = 8;

/** A serial for the device `id`: the same for the same id, on every host. */
export function serialOf(id: string): string {
  if (id.length > 0 && id.length <= SERIAL_CHARACTERS && isPrintable(id)) return id;
  const hash = createHash('sha256').update(id).digest('hex').slice(0, HASH_CHARACTERS);
  const readable = id.replace(/[^\x21-\x7e]/g, '').slice(0, SERIAL_CHARACTERS - HASH_CHARACTERS - 1);
  return readable === '' ? hash : `${readable}-${hash}`;
}

/** A medium's serial as a guest may see it: trimmed, printable, cut; undefined when nothing is left. */
export function cleanSerial(serial: string | undefined): string | undefined {
  const clean = serial
    ?.replace(/[^\x20-\x7e]/g, '')
    .trim()
    .slice(0, SERIAL_CHARACTERS)
    .trim();
  return clean === '' ? undefined : clean;
}

function isPrintable(text: string): boolean {
  return /^[\x21-\x7e]*$/.test(text);
}
