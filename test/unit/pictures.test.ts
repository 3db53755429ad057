/**
 * The pictures of docs/images that the documents explain the three systems with are those that test/lib/pictures draws: from what the
 * code does, where it can be run. Draw them anew: `npx vitest run --project unit test/unit/pictures.test.ts -u`, and look at them.
 */
import path from 'node:path';
import { expect, it } from 'vitest';
import { ROOT } from '../lib/document-blocks.js';
import { drawOfferedSets, drawRequestPath, offeredSets } from '../lib/pictures/devices.js';
import { drawGuestTime, runGuest } from '../lib/pictures/guest-time.js';
import { drawInstant, drawLazy } from '../lib/pictures/snapshots.js';

const image = (name: string) => path.join(ROOT, 'docs/images', name);

it('guest-time.svg is a run of the controller', async () => {
  const run = await runGuest();
  await expect(drawGuestTime(run)).toMatchFileSnapshot(image('guest-time.svg'));
});

it('devices-path.svg names files that are there', async () => {
  await expect(drawRequestPath()).toMatchFileSnapshot(image('devices-path.svg'));
});

it('devices-functions.svg is what providers offer', async () => {
  await expect(drawOfferedSets(await offeredSets())).toMatchFileSnapshot(image('devices-functions.svg'));
});

it('snapshot-instant.svg and snapshot-lazy.svg are drawn', async () => {
  await expect(drawInstant()).toMatchFileSnapshot(image('snapshot-instant.svg'));
  await expect(drawLazy()).toMatchFileSnapshot(image('snapshot-lazy.svg'));
});
