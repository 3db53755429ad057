/**
 * Entries of a refcount block, 1 to 64 bits wide (QEMU, docs/interop/qcow2.rst, "Host cluster management"): below a
 * byte, entry 0 stands in the least significant bits.
 */

export function getRefcount(view: DataView, bits: number, index: number): number {
  switch (bits) {
    case 64:
      return view.getUint32(index * 8) * 2 ** 32 + view.getUint32(index * 8 + 4);
    case 32:
      return view.getUint32(index * 4);
    case 16:
      return view.getUint16(index * 2);
    case 8:
      return view.getUint8(index);
    default: {
      const perByte = 8 / bits;
      return (view.getUint8(Math.floor(index / perByte)) >> ((index % perByte) * bits)) & ((1 << bits) - 1);
    }
  }
}

/** `value` fits the width: we count to 1, and down from what was there. */
export function setRefcount(view: DataView, bits: number, index: number, value: number): void {
  switch (bits) {
    case 64:
      view.setUint32(index * 8, Math.floor(value / 2 ** 32));
      view.setUint32(index * 8 + 4, value % 2 ** 32);
      break;
    case 32:
      view.setUint32(index * 4, value);
      break;
    case 16:
      view.setUint16(index * 2, value);
      break;
    case 8:
      view.setUint8(index, value);
      break;
    default: {
      const perByte = 8 / bits;
      const at = Math.floor(index / perByte);
      const shift = (index % perByte) * bits;
      const mask = ((1 << bits) - 1) << shift;
      view.setUint8(at, (view.getUint8(at) & ~mask) | (value << shift));
    }
  }
}
