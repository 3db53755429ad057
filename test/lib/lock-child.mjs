// Another process that takes the lock of a disk image as vivarium does, and keeps it until it is killed.
// Arguments: the image; 'try' to say only whether it could.
import { openSync } from 'node:fs';
import { makeRig } from './native-rig.mjs';

const [, , image, mode] = process.argv;
const locked = makeRig().addon.lockFile(openSync(image, 'r+'), true);
console.log(locked ? 'locked' : 'refused');
if (locked && mode !== 'try') setInterval(() => {}, 1000);
