/**
 * Reads the package sources that this system is configured with, in both of apt's formats, and writes private ones.
 * The private sources name the same mirrors with the same keys, limited to Debian's own suites, plus its backports;
 * the system's own files are only read. No address of a mirror is written in this program. See sources.list(5).
 */

/** One stanza: what apt calls a source. Options are deb822 field names to their text, as it stands. */
export interface AptSource {
  readonly types: readonly string[];
  readonly uris: readonly string[];
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** Signed-By, Architectures and so on; a value of several lines keeps its line ends and leading spaces. */
  readonly options: Readonly<Record<string, string>>;
}

/** Options of the one-line format whose deb822 field is more than the same words with capitals. */
const LIST_OPTIONS = new Map([
  ['arch', 'Architectures'],
  ['lang', 'Languages'],
  ['target', 'Targets'],
  ['pdiffs', 'PDiffs'],
  ['by-hash', 'By-Hash'],
]);
const COMMA_SEPARATED = new Set(['arch', 'lang', 'target']);

/** Reads the one-line format: `deb [option=value ...] uri suite [component ...]`, with # comments. */
export function parseSourcesList(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*(deb|deb-src)\s+(?:\[([^\]]*)\]\s*)?(.*)$/.exec(line.replace(/#.*$/, ''));
    if (!match) continue;
    const [uri, suite, ...components] = words(match[3] ?? '');
    if (uri === undefined || suite === undefined) continue;
    const options: Record<string, string> = {};
    for (const option of words(match[2] ?? '')) {
      const assignment = /^([a-z-]+)[+-]?=(.*)$/.exec(option);
      if (!assignment) continue;
      const [, name = '', value = ''] = assignment;
      options[LIST_OPTIONS.get(name) ?? capitalized(name)] = COMMA_SEPARATED.has(name)
        ? value.replaceAll(',', ' ')
        : value;
    }
    sources.push({ types: [match[1] ?? 'deb'], uris: [uri], suites: [suite], components, options });
  }
  return sources;
}

/** Reads the deb822 format: stanzas of fields, continued by lines that start with a space. Disabled ones are left out. */
export function parseDeb822Sources(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const stanza of text.split(/\n[ \t]*\n/)) {
    const fields = new Map<string, { name: string; value: string }>();
    let last: { name: string; value: string } | undefined;
    for (const line of stanza.split('\n')) {
      if (line.startsWith('#') || line.trim() === '') continue;
      if (/^[ \t]/.test(line)) {
        if (last) last.value += `\n${line}`;
        continue;
      }
      const colon = line.indexOf(':');
      if (colon <= 0) continue;
      last = { name: line.slice(0, colon).trim(), value: line.slice(colon + 1).trim() };
      fields.set(last.name.toLowerCase(), last);
    }
    const list = (name: string): string[] => words(fields.get(name)?.value ?? '');
    if (/^(no|false|0|off|without|disable)$/i.test(fields.get('enabled')?.value ?? '')) continue;
    if (list('types').length === 0 || list('uris').length === 0 || list('suites').length === 0) continue;
    const options: Record<string, string> = {};
    for (const [key, field] of fields) {
      if (!['types', 'uris', 'suites', 'components', 'enabled'].includes(key)) options[field.name] = field.value;
    }
    sources.push({
      types: list('types'),
      uris: list('uris'),
      suites: list('suites'),
      components: list('components'),
      options,
    });
  }
  return sources;
}

/** Writes sources in the deb822 format. */
export function formatDeb822Sources(sources: readonly AptSource[]): string {
  return sources
    .map((source) => {
      const lines = [
        `Types: ${source.types.join(' ')}`,
        `URIs: ${source.uris.join(' ')}`,
        `Suites: ${source.suites.join(' ')}`,
        ...(source.components.length > 0 ? [`Components: ${source.components.join(' ')}`] : []),
        ...Object.entries(source.options).map(([name, value]) =>
          value.startsWith('\n') ? `${name}:${value}` : `${name}: ${value}`,
        ),
      ];
      return lines.join('\n') + '\n';
    })
    .join('\n');
}

/** The binary sources among `sources` that are of the release `codename`: itself, its updates and its security suite. */
export function releaseSources(sources: readonly AptSource[], codename: string): AptSource[] {
  const wanted = new Set(
    [codename, 'stable', 'oldstable'].flatMap((release) => [
      release,
      `${release}-updates`,
      `${release}-security`,
      `${release}/updates`,
    ]),
  );
  return narrowed(sources, (suite) => wanted.has(suite));
}

/** Sources for the release's backports on the mirrors that carry the release itself; empty if none is configured. */
export function backportsSources(sources: readonly AptSource[], codename: string): AptSource[] {
  const own = new Set([codename, 'stable', 'oldstable']);
  return narrowed(sources, (suite) => own.has(suite)).map((source) => ({
    ...source,
    suites: [`${codename}-backports`],
    components: ['main'],
  }));
}

function narrowed(sources: readonly AptSource[], wanted: (suite: string) => boolean): AptSource[] {
  return sources
    .filter((source) => source.types.includes('deb') && source.components.includes('main'))
    .map((source) => ({
      ...source,
      types: ['deb'],
      uris: source.uris.filter((uri) => !uri.startsWith('cdrom:')),
      suites: source.suites.filter(wanted),
    }))
    .filter((source) => source.uris.length > 0 && source.suites.length > 0);
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}

function capitalized(name: string): string {
  return name.replace(/(^|-)([a-z])/g, (_, dash: string, letter: string) => dash + letter.toUpperCase());
}
