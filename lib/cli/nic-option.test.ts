import { describe, expect, it } from 'vitest';
import { formatNic, parseNics } from './nic-option.js';

const none = { mac: undefined, mtuBytes: undefined };
const forward = (hostPort: number, guestPort: number, more = {}) => {
  return { address: undefined, hostPort, guestPort, protocol: 'tcp', ...more };
};

describe('parseNics', () => {
  it('reads backends, options in any order, and makes ids', () => {
    const texts = [
      'switch:lan',
      'tap:tap0,mtu=1400,id=dmz,mac=02:00:00:00:00:0A',
      'passt',
      'passt:8080:80,127.0.0.1:53:5353/udp,[::1]:22:22,id=out,iops=100,bps=1.5M',
    ];
    const nics = parseNics(texts, []);
    expect(nics).toEqual([
      { id: 'net0', network: { kind: 'switch', name: 'lan' }, ...none },
      { id: 'dmz', network: { kind: 'tap', name: 'tap0' }, mac: '02:00:00:00:00:0A', mtuBytes: 1400 },
      { id: 'net2', network: { kind: 'passt', forwards: [] }, ...none },
      {
        id: 'out',
        network: {
          kind: 'passt',
          forwards: [
            forward(8080, 80),
            forward(53, 5353, { address: '127.0.0.1', protocol: 'udp' }),
            forward(22, 22, { address: '::1' }),
          ],
        },
        ...none,
        limits: { operationsPerSecond: 100, bytesPerSecond: 1_572_864 },
      },
    ]);
    expect(parseNics(nics.map(formatNic), [])).toEqual(nics);
  });

  it('gives ports of -p to the first passt, or makes one', () => {
    expect(parseNics(['switch:a', 'passt:1:2', 'passt'], ['3:4,5:6', '7:8'])[1]!.network).toEqual({
      kind: 'passt',
      forwards: [forward(1, 2), forward(3, 4), forward(5, 6), forward(7, 8)],
    });
    expect(parseNics(['switch:a,id=net1'], ['3:4'])).toMatchObject([
      { id: 'net1' },
      { id: 'net2', network: { kind: 'passt', forwards: [forward(3, 4)] } },
    ]);
  });

  it.each([
    [['tun:a'], [], /--nic tun:a: 'tun' is none of tap:NAME, switch:NAME, passt/],
    [[''], [], /'' is none of/],
    [['carried'], [], /'carried' is none of/],
    [['tap'], [], /tap:NAME is wanted/],
    [['tap:a-name-of-16-byte'], [], /from 1 to 15 bytes/],
    [[`tap:${'ü'.repeat(8)}`], [], /from 1 to 15 bytes/],
    [['tap:tap%d'], [], /no space, no \/ : % ,/],
    [['tap:tap0,up'], [], /tap:NAME is wanted/],
    [['switch:'], [], /switch:NAME is wanted/],
    [['switch:a b'], [], /switch:NAME is wanted/],
    [['switch:a,id=a/b'], [], /'a\/b' is no id/],
    [['switch:a,mac=02:00'], [], /'02:00' is no address/],
    [['switch:a,mac=01:00:5e:00:00:01'], [], /address of a group/],
    [['switch:a,mtu=65522'], [], /'65522' is no MTU/],
    [['switch:a,ip=10.0.0.1'], [], /unknown option 'ip'; there are id, mac, mtu, bps and iops/],
    [['switch:a,bps=0'], [], /bps: '0' is no number of bytes a second/],
    [['switch:a,iops=1e3'], [], /iops: '1e3' is no number of operations/],
    [['passt:'], [], /'': HOST:GUEST is wanted/],
    [['passt:80'], [], /'80': HOST:GUEST is wanted/],
    [['passt:80:80,id'], [], /'id': HOST:GUEST is wanted/],
    [['passt:70000:80'], [], /70000 is no port/],
    [[], ['80:0'], /-p 80:0: '80:0': 0 is no port/],
    [[], ['80:80/sctp'], /'sctp' is none of tcp, udp/],
    [[], ['host:80:80'], /'host' is no address/],
    [[], ['80:80', '0.0.0.0:80:81'], /the host's tcp port 80 is forwarded twice/],
    [['switch:a,id=x', 'switch:b,id=x'], [], /two nics have the id 'x'/],
    [['switch:a,mac=02:00:00:00:00:0a', 'switch:a,mac=02:00:00:00:00:0A'], [], /two nics have the address/],
  ])('refuses %j with -p %j', (nics, forwards, message) => {
    expect(() => parseNics(nics, forwards)).toThrow(message);
  });

  it('takes one port of two protocols or addresses', () => {
    expect(parseNics([], ['53:53', '53:53/udp', '127.0.0.1:80:80', '127.0.0.2:80:80'])).toHaveLength(1);
  });
});
