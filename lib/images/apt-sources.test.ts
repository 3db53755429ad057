/** Reading apt's two formats of sources, and what of them becomes a private source. */
import { describe, expect, it } from 'vitest';
import {
  backportsSources,
  formatDeb822Sources,
  parseDeb822Sources,
  parseSourcesList,
  releaseSources,
} from './apt-sources.js';

const MIRROR = 'http://mirror.example/debian';

describe('parseSourcesList', () => {
  it('reads a plain line', () => {
    expect(parseSourcesList(`deb ${MIRROR} bookworm main contrib\n`)).toEqual([
      { types: ['deb'], uris: [MIRROR], suites: ['bookworm'], components: ['main', 'contrib'], options: {} },
    ]);
  });

  it('leaves out comments, blank lines, unfinished lines and what it does not know', () => {
    const text = `# deb ${MIRROR} bookworm main\n\n  \ndeb\ndeb ${MIRROR}\nrpm ${MIRROR} x main\ndeb ${MIRROR} sid main # deb x y z\n`;
    expect(parseSourcesList(text).map((source) => source.suites)).toEqual([['sid']]);
  });

  it('turns options into fields', () => {
    const [source] = parseSourcesList(
      `deb [ arch=amd64,arm64 signed-by=/usr/share/keyrings/k.gpg trusted=yes by-hash=no ] ${MIRROR} bookworm main`,
    );
    expect(source?.options).toEqual({
      Architectures: 'amd64 arm64',
      'Signed-By': '/usr/share/keyrings/k.gpg',
      Trusted: 'yes',
      'By-Hash': 'no',
    });
  });

  it('keeps deb-src apart and an exact path without components', () => {
    const sources = parseSourcesList(`deb-src ${MIRROR} bookworm main\ndeb ${MIRROR} ./\n`);
    expect(sources.map(({ types, components }) => [types, components])).toEqual([
      [['deb-src'], ['main']],
      [['deb'], []],
    ]);
  });
});

describe('parseDeb822Sources', () => {
  it('reads several stanzas with lists, comments and any case of names', () => {
    const text = `Types: deb deb-src\n# a comment\nURIs: ${MIRROR}\nsuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n \n\nTypes: deb\nURIs: ${MIRROR}-security\nSuites: bookworm-security\nComponents: main\n`;
    expect(parseDeb822Sources(text)).toEqual([
      {
        types: ['deb', 'deb-src'],
        uris: [MIRROR],
        suites: ['bookworm', 'bookworm-updates'],
        components: ['main'],
        options: { 'Signed-By': '/k.gpg' },
      },
      {
        types: ['deb'],
        uris: [`${MIRROR}-security`],
        suites: ['bookworm-security'],
        components: ['main'],
        options: {},
      },
    ]);
  });

  it('leaves out what is disabled or not whole', () => {
    const text = `Types: deb\nURIs: ${MIRROR}\nSuites: a\nEnabled: no\n\nTypes: deb\nURIs: ${MIRROR}\n\nno field at all\n`;
    expect(parseDeb822Sources(text)).toEqual([]);
  });

  it('carries a key of several lines through reading and writing', () => {
    const key = 'Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc=\n -----END PGP PUBLIC KEY BLOCK-----';
    const text = `Types: deb\nURIs: ${MIRROR}\nSuites: bookworm\nComponents: main\n${key}\n`;
    const parsed = parseDeb822Sources(text);
    expect(formatDeb822Sources(parsed)).toBe(text);
    expect(parseDeb822Sources(formatDeb822Sources([...parsed, ...parsed]))).toEqual([...parsed, ...parsed]);
  });
});

describe('private sources', () => {
  const configured = [
    ...parseSourcesList(
      [
        `deb cdrom:[Debian]/ bookworm main`,
        `deb ${MIRROR} bookworm main`,
        `deb-src ${MIRROR} bookworm main`,
        `deb ${MIRROR} bookworm-updates contrib`,
        `deb https://third.example/node nodistro main`,
      ].join('\n'),
    ),
    ...parseDeb822Sources(
      `Types: deb\nURIs: ${MIRROR}-security\nSuites: bookworm-security trixie\nComponents: main\nSigned-By: /k.gpg\n`,
    ),
  ];

  it('keeps the binary sources of this release and nothing of others', () => {
    expect(releaseSources(configured, 'bookworm')).toEqual([
      { types: ['deb'], uris: [MIRROR], suites: ['bookworm'], components: ['main'], options: {} },
      {
        types: ['deb'],
        uris: [`${MIRROR}-security`],
        suites: ['bookworm-security'],
        components: ['main'],
        options: { 'Signed-By': '/k.gpg' },
      },
    ]);
  });

  it('takes the backports from the mirror of the release, not from that of its security updates', () => {
    const backports = backportsSources(configured, 'bookworm');
    expect(backports.map(({ uris, suites }) => [uris, suites])).toEqual([[[MIRROR], ['bookworm-backports']]]);
  });

  it('has nothing to offer where nothing fits', () => {
    expect(releaseSources(configured, 'sid')).toEqual([]);
    expect(formatDeb822Sources(backportsSources(configured, 'sid'))).toBe('');
  });
});
