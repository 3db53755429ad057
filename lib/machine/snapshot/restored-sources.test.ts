import { expect, it, describe } from 'vitest';
import { recordedNetwork, passt, tap, networkSwitch } from '../../vsp/index.js';
import { netSource } from './restored-sources.js';

const again = (description: object) => netSource('net0', JSON.parse(JSON.stringify(description)) as never).describe();

describe('a network by its description', () => {
  it.each([
    ['tap', tap('tap0')],
    ['switch', networkSwitch('lan')],
    ['switch with an MTU of its own', networkSwitch('lan', { mtuBytes: 9000 })],
    ['passt', passt()],
    ['passt with bounds of its own', passt({ hostLoopback: false, mtuBytes: 9000 })],
  ])('%s: is the same', (_name, source) => {
    expect(again(source.describe())).toEqual(source.describe());
  });

  it('is what a recorder stood around, without its file', () => {
    expect(again(recordedNetwork(tap('tap0'), 'file.pcap').describe())).toEqual({ kind: 'tap', name: 'tap0' });
  });

  it.each([
    ['with forwards', passt({ forwards: [{ host: 8080, guest: 80 }] }).describe()],
    ['of an older description, whose isolation is not known', { kind: 'passt', forwards: '' }],
    ['of an unknown kind', { kind: 'magic', path: '/dev/null' }],
    ['of recorders around recorders', { kind: 'recorder', around: { kind: 'recorder', around: { kind: 'recorder' } } }],
    ['of none', {}],
  ])('%s: is refused, with the cure', (_name, description) => {
    const cure = expect.stringContaining("nics: { 'net0'") as string;
    expect(() => again(description)).toThrow(expect.objectContaining({ code: 'ERR_SNAPSHOT', cure }));
  });
});
