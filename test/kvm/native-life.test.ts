/**
 * The raw addon at the end of things: processes that leave, Workers that are terminated and objects that are collected
 * while guests run. Each scene is a child process (test/lib/native-child.mjs): it must end with 0 and leave nothing.
 */
import { describe, expect, it } from 'vitest';
import { playScene } from '../lib/scenes.js';

const play = (scene: string, descriptors?: number) => playScene(scene, { script: 'native-child.mjs', descriptors });

interface Held {
  kvmFds: number;
  fds: number;
  kvmMaps: number;
  guestThreads: number;
  threads: number;
}

describe('a process with guests running', () => {
  it.each([
    ['ends by itself when its event loop is empty', 'leave'],
    ['ends by process.exit()', 'exit'],
    ['ends by process.exit() while vCPUs wait for it', 'exit-waiting'],
    ['ends by process.exit() while a machine is being closed', 'exit-closing'],
    ['ends by an exception', 'throw'],
    ['ends by an exception in what a signal calls', 'throw-when-signalled'],
  ])('%s', async (_, scene) => {
    for (let round = 0; round < 3; round++) await expect(play(scene)).resolves.toEqual({});
  });

  it('loses machines that nobody holds: threads, descriptors and mappings', async () => {
    const { before, during, after, counts } = await play('collect');
    expect(during).toMatchObject({ vms: 3, vcpus: 6, threads: 7 });
    expect(counts).toMatchObject({ vms: 0, vcpus: 0, threads: 1, mappings: 0 });
    const { fds: fdsBefore, ...left } = before as Held;
    const { fds: fdsAfter, ...now } = after as Held;
    expect(now).toEqual(left);
    expect(fdsAfter - fdsBefore).toBe(3); // the watched eventfds, which are not the machines' own
  });

  it('keeps a mapping for a view, and a machine for a vCPU', async () => {
    expect(await play('collect-view')).toEqual({ kept: 1, value: 5, left: 0 });
    expect(await play('collect-not')).toMatchObject({ vms: 1, vcpus: 1, threads: 2 });
  });
});

describe('a Worker with guests running', () => {
  it('ends in every way and leaves nothing in the process', async () => {
    const { before, after } = await play('worker');
    expect(after).toEqual(before);
    expect(after).toMatchObject({ kvmFds: 0, kvmMaps: 0, guestThreads: 0 });
  });
});

describe('a process without descriptors to spare', () => {
  it('gets EMFILE wherever it comes, and leaks nothing', async () => {
    const { before, after, errors, counts } = await play('emfile', 128);
    expect(errors).toEqual(expect.arrayContaining(['EMFILE', 'KVM_CREATE_VM EMFILE', 'KVM_CREATE_VCPU EMFILE']));
    expect(after).toEqual(before);
    expect(counts).toMatchObject({ vms: 0, vcpus: 0, threads: 1, mappings: 0, eventFds: 0 });
  });
});
