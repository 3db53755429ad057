/**
 * The documents keep to what exists: links lead somewhere, files, npm scripts and bench programs that are named are there,
 * and every block of TypeScript compiles against the library's own types.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

const ROOT = path.resolve(import.meta.dirname, '../..');

const documents = execFileSync('git', ['ls-files', '-z', '*.md'], { cwd: ROOT, encoding: 'utf8' })
  .split('\0')
  .filter((file) => file !== '' && existsSync(path.join(ROOT, file)));

const read = (file: string) => readFileSync(path.join(ROOT, file), 'utf8');
const withoutCode = (text: string) => text.replace(/```[\s\S]*?```/g, '').replace(/`[^`\n]*`/g, '');
const manifest = JSON.parse(read('package.json')) as { scripts: Record<string, string> };

/** The anchor that GitHub gives a heading. */
const anchor = (heading: string) =>
  heading
    .toLowerCase()
    .replace(/[`*]/g, '')
    .replace(/[^\p{Letter}\p{Number}\s_-]/gu, '')
    .trim()
    .replace(/\s/g, '-');

const anchorsOf = (file: string) => [...read(file).matchAll(/^#{1,6} (.*)$/gm)].map((match) => anchor(match[1]!));

describe.each(documents)('%s', (file) => {
  const text = read(file);

  it('links only to what exists', () => {
    const broken = [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)]
      .map((match) => match[1]!)
      .filter((target) => !/^[a-z]+:/.test(target))
      .filter((target) => {
        const [name, fragment] = target.split('#') as [string, string | undefined];
        const linked = name === '' ? file : path.posix.join(path.posix.dirname(file), name);
        if (!existsSync(path.join(ROOT, linked))) return true;
        return fragment !== undefined && linked.endsWith('.md') && !anchorsOf(linked).includes(fragment);
      });
    expect(broken).toEqual([]);
  });

  it('names only files of the repository that exist', () => {
    const named = [...text.matchAll(/`((?:lib|native|scripts|test|bench|docs|examples|guest|\.ci)\/[\w./-]*)`/g)];
    const missing = named.map((match) => match[1]!).filter((name) => !existsSync(path.join(ROOT, name)));
    expect(missing).toEqual([]);
  });

  it('names only npm scripts that exist', () => {
    const named = [...text.matchAll(/npm run ([\w:]+)/g)].map((match) => match[1]!);
    expect(named.filter((name) => !(name in manifest.scripts))).toEqual([]);
  });

  it('names only bench programs that exist', () => {
    const programs = [...text.matchAll(/npm run bench -- (\w+)/g)].map((match) => match[1]!);
    expect(programs.filter((name) => name !== 'NAME' && !existsSync(path.join(ROOT, `bench/${name}.ts`)))).toEqual([]);
  });

  const blocks = [...text.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]!);
  if (blocks.length > 0) {
    it('shows TypeScript that compiles', { timeout: 120_000 }, () => {
      expect(compile(file, blocks)).toEqual([]);
    });
  }
});

/** Type-checks the blocks of a document, each as a module that imports the library by its name; all at once, which costs as one does. */
function compile(document: string, blocks: readonly string[]): string[] {
  const config = ts.readConfigFile(path.join(ROOT, 'tsconfig.json'), (file) => readFileSync(file, 'utf8'));
  const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, ROOT);
  options.paths = { vivarium: [path.join(ROOT, 'lib/index.ts')] };
  options.noEmit = true;
  const virtual = new Map(
    blocks.map((source, index) => [
      path.join(ROOT, `${document}.${index}.ts`.replaceAll('/', '_')),
      source.includes('export ') ? source : `${source}\nexport {};\n`,
    ]),
  );
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.getSourceFile = (file, ...rest) => {
    const text = virtual.get(file);
    return text === undefined
      ? getSourceFile.call(host, file, ...rest)
      : ts.createSourceFile(file, text, ts.ScriptTarget.ES2022);
  };
  host.fileExists = (file) => virtual.has(file) || fileExists.call(host, file);
  host.readFile = (file) => virtual.get(file) ?? readFile.call(host, file);
  const program = ts.createProgram([...virtual.keys()], options, host);
  return [...virtual.keys()].flatMap((name) => {
    const file = program.getSourceFile(name);
    return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)].map(
      ({ messageText }) => `${path.basename(name)}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`,
    );
  });
}

it('SPECIFICATION.md shows the figures of bench/results/', async () => {
  // @ts-expect-error -- a script without types
  const { withFigures } = (await import('../../scripts/figures.mjs')) as { withFigures: (text: string) => string };
  expect(read('SPECIFICATION.md')).toBe(withFigures(read('SPECIFICATION.md')));
});
