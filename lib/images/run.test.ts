/** Running a tool: its output, its failure in its own words, and being stopped. */
import { describe, expect, it } from 'vitest';
import { runTool } from './run.js';

describe('runTool', () => {
  it('gives stdout, and every line of both outputs as it comes', async () => {
    const lines: string[] = [];
    const output = await runTool('sh', ['-c', 'printf "a\\nb"; echo c >&2'], { onLine: (line) => lines.push(line) });
    expect(output).toBe('a\nb');
    expect(lines.sort()).toEqual(['a', 'b', 'c']);
  });

  it('fails with the tool’s last words, its status and the cure', async () => {
    await expect(runTool('sh', ['-c', 'echo why >&2; exit 3'], { cure: 'do this' })).rejects.toMatchObject({
      code: 'ERR_SETUP',
      cure: 'do this',
      message: expect.stringMatching(/status 3:\n {2}why/),
    });
    await expect(runTool('sh', ['-c', 'kill -9 $$'])).rejects.toThrow(/SIGKILL/);
    await expect(runTool('/nowhere/tool', [])).rejects.toMatchObject({ code: 'ERR_SETUP' });
  });

  it('hands on no stdin and the C locale', async () => {
    expect(await runTool('sh', ['-c', 'cat; echo $LC_ALL $EXTRA'], { env: { EXTRA: 'x' } })).toBe('C x\n');
  });

  it('ends the tool when it is aborted', async () => {
    const ended = new AbortController();
    const running = runTool('sh', ['-c', 'echo started; exec sleep 60'], {
      signal: ended.signal,
      onLine: () => {
        ended.abort();
      },
    });
    await expect(running).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(runTool('true', [], { signal: ended.signal })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });
});
