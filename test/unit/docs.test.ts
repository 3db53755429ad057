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

/** Every document's blocks of TypeScript as modules that import the library by its name, in one program: the library is read once. */
const modules = new Map(
  documents.flatMap((file) => blocksOf(file).map((block, index) => [moduleOf(file, index), block])),
);

function blocksOf(file: string): string[] {
  const blocks = [...read(file).matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]!);
  return blocks.map((block) => (block.includes('export ') ? block : `${block}\nexport {};\n`));
}

function moduleOf(file: string, index: number): string {
  return path.join(ROOT, `${file.replaceAll('/', '_')}.${index}.ts`);
}

let made: ts.Program | undefined;
function program(): ts.Program {
  if (made !== undefined) return made;
  const config = ts.readConfigFile(path.join(ROOT, 'tsconfig.json'), (file) => readFileSync(file, 'utf8'));
  const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, ROOT);
  options.paths = { vivarium: [path.join(ROOT, 'lib/index.ts')] };
  options.noEmit = true;
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.getSourceFile = (file, ...rest) => {
    const text = modules.get(file);
    return text === undefined
      ? getSourceFile.call(host, file, ...rest)
      : ts.createSourceFile(file, text, ts.ScriptTarget.ES2022);
  };
  host.fileExists = (file) => modules.has(file) || fileExists.call(host, file);
  host.readFile = (file) => modules.get(file) ?? readFile.call(host, file);
  return (made = ts.createProgram([...modules.keys()], options, host));
}

/** What the compiler has to say of a document's blocks; the library itself is checked by `npm run types`. */
function complaints(file: string): string[] {
  return blocksOf(file)
    .map((_, index) => program().getSourceFile(moduleOf(file, index))!)
    .flatMap((source) => [...program().getSyntacticDiagnostics(source), ...program().getSemanticDiagnostics(source)])
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
}

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

  if (blocksOf(file).length > 0) {
    it('shows TypeScript that compiles', { timeout: 120_000 }, () => {
      expect(complaints(file)).toEqual([]);
    });
  }
});

it('SPECIFICATION.md shows the figures of bench/results/', async () => {
  // @ts-expect-error -- a script without types
  const { withFigures } = (await import('../../scripts/figures.mjs')) as { withFigures: (text: string) => string };
  expect(read('SPECIFICATION.md')).toBe(withFigures(read('SPECIFICATION.md')));
});
