/**
 * The dashboard as its users have it: the built page in Chromium, over machines of flat guests that are served by their names, with
 * snapshots that are taken, restored in processes of their own, and deleted.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { hostClock } from '../../lib/base/clock.js';
import { restoreProcess } from '../../lib/cli/restore-process.js';
import { connect, listMachines, scrapeMachines, serveMachine } from '../../lib/control/index.js';
import { startDashboard, type Dashboard } from '../../lib/dashboard/index.js';
import type { Machine } from '../../lib/machine/index.js';
import { snapshots } from '../../lib/snapshot/index.js';
import { memoryDisk } from '../../lib/vsp/index.js';
import { noBrowser, openBrowser, picture } from '../lib/browser.js';
import { makeGuest, type GuestOptions } from '../lib/machine.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const folder = mkdtempSync(path.join(tmpdir(), 'viv-'));
const shelf = path.join(folder, 'snapshots');
const runtime = process.env['XDG_RUNTIME_DIR'];
let browser: Browser | undefined;
let dashboard: Dashboard | undefined;

beforeAll(async () => {
  process.env['XDG_RUNTIME_DIR'] = folder;
  mkdirSync(shelf);
  if (noBrowser !== undefined) return;
  browser = await openBrowser();
  dashboard = await startDashboard({
    world: {
      clock: hostClock,
      list: () => listMachines(),
      connect: (name, signal) => connect(name, { signal }),
      metrics: () => scrapeMachines(),
      store: snapshots,
      restore: (dir, name, options) =>
        restoreProcess(dir, name, options, [process.execPath, path.join(ROOT, 'dist/command/main.js')]),
    },
    snapshots: shelf,
  });
});
afterAll(async () => {
  await browser?.close();
  await dashboard?.close();
  if (runtime === undefined) delete process.env['XDG_RUNTIME_DIR'];
  else process.env['XDG_RUNTIME_DIR'] = runtime;
  rmSync(folder, { recursive: true, force: true });
});
beforeEach((context) => {
  if (noBrowser !== undefined) context.skip(noBrowser);
});

async function serve(name: string, guest: string, options: GuestOptions = {}): Promise<Machine> {
  const vm = await makeGuest(guest, { name, ...options });
  const served = await serveMachine(vm);
  onTestFinished(async () => {
    await vm.close();
    await served.close();
  });
  await vm.start();
  return vm;
}

/** Ticks 100 times a second and halts in between. */
const clockGuest = (name: string): Promise<Machine> =>
  serve(name, 'pit-ticks', { defines: { COUNT: 11_932, STOP: 0, PIN: 255 } });

interface Opened {
  readonly page: Page;
  /** What went wrong in it. */
  readonly troubles: string[];
}

async function open(options: { width?: number; dark?: boolean } = {}): Promise<Opened> {
  const context = await browser!.newContext({
    viewport: { width: options.width ?? 1280, height: 900 },
    colorScheme: options.dark === true ? 'dark' : 'light',
  });
  onTestFinished(() => context.close());
  const page = await context.newPage();
  const troubles: string[] = [];
  page.on('pageerror', ({ message }) => troubles.push(message));
  page.on('console', (message) => {
    if (message.type() === 'error') troubles.push(message.text());
  });
  await page.goto(dashboard!.url);
  return { page, troubles };
}

const choose = (page: Page, name: string): Promise<void> =>
  page.locator('.machine-choice', { has: page.getByText(name, { exact: true }) }).click();

const chart = (page: Page, title: string) => page.locator('section.panel', { hasText: title });

/** Whether a time of catch-up is shaded: with the colour of the styles, on what is drawn through. */
function hasShade(page: Page): Promise<boolean> {
  return chart(page, 'Guest time by the PIT')
    .locator('canvas')
    .first()
    .evaluate((element) => {
      const canvas = element as unknown as {
        width: number;
        height: number;
        getContext(kind: string): { getImageData(...at: number[]): { data: Uint8ClampedArray } };
      };
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const wanted = [196, 120, 0, 56];
      for (let at = 0; at < data.length; at += 4) {
        if (wanted.every((value, channel) => Math.abs(data[at + channel]! - value) <= 4)) return true;
      }
      return false;
    });
}

/** How many colours the picture of memory has: a blank one has one. */
function heatColours(page: Page): Promise<number> {
  return page.locator('canvas.heat').evaluate((element) => {
    const canvas = element as unknown as {
      width: number;
      height: number;
      getContext(kind: string): { getImageData(...at: number[]): { data: Uint8ClampedArray } };
    };
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
  });
}

/** Whether a line of the colour of this name, as the styles have it, is drawn. */
function hasLine(page: Page, title: string, colour: string): Promise<boolean> {
  return chart(page, title)
    .locator('canvas')
    .first()
    .evaluate((element, name) => {
      const canvas = element as unknown as {
        width: number;
        height: number;
        getContext(kind: string): { getImageData(...at: number[]): { data: Uint8ClampedArray } };
      };
      const { getComputedStyle, document } = globalThis as unknown as {
        getComputedStyle(of: unknown): { getPropertyValue(name: string): string };
        document: { documentElement: unknown };
      };
      const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      const [red, green, blue] = [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      for (let at = 0; at < data.length; at += 4) {
        if (data[at] === red && data[at + 1] === green && data[at + 2] === blue) return true;
      }
      return false;
    }, colour);
}

const consoleText = (page: Page): Promise<string> => page.locator('.console .xterm-rows').innerText();

/** The page does not scroll to the side. */
const overflow = (page: Page): Promise<number> =>
  page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth');

describe('the page', () => {
  it('shows the machines, draws their figures, and changes their states', async () => {
    const vm = await clockGuest('clock');
    const { page, troubles } = await open();
    await page.getByRole('status').getByText('connected', { exact: true }).waitFor();
    expect(await page.context().cookies()).toEqual([]);
    for (const title of ['Guest time by the PIT', 'Exits a second, by reason', 'Dirty pages a second']) {
      await expect.poll(() => hasLine(page, title, '--series-1'), { timeout: 20_000 }).toBe(true);
    }
    await expect.poll(() => hasLine(page, 'Guest time by the PIT', '--series-2'), { timeout: 20_000 }).toBe(true);
    await expect.poll(() => heatColours(page)).toBeGreaterThan(1);
    const told = chart(page, 'Guest time by the PIT').locator('figcaption');
    await expect.poll(() => told.innerText()).toMatch(/lag [\d.]+ ms; \d+ of 100 Hz; /);
    await expect.poll(() => page.locator('.machine-choice .figures').innerText()).toMatch(/exits\/s, [\d.]+ +Hz/);
    await picture(page, 'dashboard-light');
    await page.getByRole('button', { name: 'Pause' }).click();
    await expect.poll(() => vm.state).toBe('paused');
    await page.getByRole('button', { name: 'Resume' }).click();
    await expect.poll(() => vm.state).toBe('running');
    // What it has missed meanwhile is caught up.
    await expect.poll(() => hasShade(page)).toBe(true);
    await page.getByRole('button', { name: 'Kill' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Kill' }).click();
    expect(await vm.wait()).toEqual({ reason: 'killed' });
    await page.locator('#no-machines').waitFor();
    await expect.poll(() => dashboard!.watches).toBe(0);
    expect(troubles).toEqual([]);
  });

  it('has a console that shows and takes what is typed, also from a second page', async () => {
    await serve('echo', 'uart-echo');
    const { page, troubles } = await open();
    const second = await open({ dark: true });
    for (const each of [page, second.page])
      await expect.poll(() => consoleText(each), { timeout: 20_000 }).toContain('ready');
    await page.locator('.console').click();
    await page.keyboard.type('hello');
    for (const each of [page, second.page]) await expect.poll(() => consoleText(each)).toContain('hello');
    await second.page.locator('.console').focus();
    await second.page.keyboard.press('Enter');
    await second.page.keyboard.type(', you');
    for (const each of [page, second.page]) await expect.poll(() => consoleText(each)).toContain('hello, you');
    await picture(second.page, 'dashboard-console-dark');
    expect([...troubles, ...second.troubles]).toEqual([]);
  });

  it('draws disks, and tells what the backend does from what is emulated', async () => {
    const limits = { operationsPerSecond: 200 };
    await serve('reads', 'virtio-blk-reads', {
      mode: 'long64',
      defines: { DATA: 0x60000, TAKEN: 0x70000, READS: 0x7fffffff },
      disks: [{ id: 'root', backend: memoryDisk('1MiB'), limits }],
    });
    const { page, troubles } = await open();
    const told = chart(page, 'Disk root').locator('figcaption');
    await expect
      .poll(() => told.innerText(), { timeout: 20_000 })
      .toMatch(/native [\d.]+ KiB\/s, [\d.]+ +requests\/s; emulated 0 B\/s/);
    await expect.poll(() => hasLine(page, 'Disk root', '--series-3')).toBe(true);
    await picture(page, 'dashboard-disk');
    expect(
      await chart(page, 'Disk root')
        .getByRole('row', { name: /^read native [1-9]/ })
        .count(),
    ).toBe(1);
    expect(troubles).toEqual([]);
  });
});

describe('snapshots', () => {
  it('are taken, restored under a name, and deleted', async () => {
    await clockGuest('clock');
    const { page, troubles } = await open();
    await page.getByRole('button', { name: 'Take a snapshot' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Name of the snapshot').fill('first');
    await dialog.getByRole('button', { name: 'Save' }).click();
    const restore = page.getByRole('button', { name: 'Restore first' });
    await restore.waitFor({ timeout: 20_000 });
    await picture(page, 'dashboard-snapshots');
    await restore.click();
    await dialog.getByLabel('Name of the machine').fill('again');
    onTestFinished(async () => {
      const again = (await listMachines()).find(({ name }) => name === 'again');
      if (again !== undefined) await (await connect('again')).kill();
    });
    await dialog.getByRole('button', { name: 'Restore' }).click();
    await page.getByText('restore first as again: done').waitFor({ timeout: 40_000 });
    await choose(page, 'again');
    await expect.poll(() => page.locator('main h2').innerText()).toBe('again');
    const told = chart(page, 'Guest time by the PIT').locator('figcaption');
    await expect.poll(() => told.innerText(), { timeout: 20_000 }).toMatch(/ of 100 Hz; /);
    await page.getByRole('button', { name: 'Delete first' }).click();
    await dialog.getByRole('button', { name: 'Delete' }).click();
    await expect.poll(() => restore.count()).toBe(0);
    expect((await snapshots.list(shelf)).snapshots).toEqual([]);
    expect(troubles).toEqual([]);
  });
});

describe('without a mouse, on a narrow screen', () => {
  it('every control is reached by Tab, in its order, and the console is left again', async () => {
    await clockGuest('clock');
    const { page } = await open();
    await page.getByRole('button', { name: 'Take a snapshot' }).waitFor();
    const wanted = await page
      .locator('button:enabled, a[href], .console, input, select')
      .evaluateAll(
        (elements) =>
          elements.filter((element) => (element as unknown as { offsetParent: unknown }).offsetParent !== null).length,
      );
    const label = (): Promise<string> =>
      page.evaluate(
        "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText).slice(0, 40)",
      );
    const reached: string[] = [];
    for (let press = 0; press < wanted + 2; press++) {
      await page.keyboard.press('Tab');
      reached.push(await label());
    }
    expect(reached[0]).toBe('Skip to the machine');
    expect(reached[1]).toMatch(/^clock/);
    const controls = ['Pause', 'Stop', 'Kill', 'Take a snapshot', 'Console of clock'];
    const places = controls.map((name) => reached.findIndex((text) => text.startsWith(name)));
    expect(places).toEqual([2, 3, 4, 5, 6]);
    await page.locator('.console').focus();
    await page.keyboard.press('Enter');
    await expect.poll(() => page.evaluate('document.activeElement.tagName')).toBe('TEXTAREA');
    await page.keyboard.press('Tab');
    expect(await page.evaluate('document.activeElement.tagName')).toBe('TEXTAREA');
    await page.keyboard.press('Control+]');
    await expect.poll(label).toMatch(/^Console of clock/);
    await page.locator('main').getByRole('button', { name: 'Kill' }).focus();
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').waitFor();
    await page.keyboard.press('Escape');
    await expect.poll(label).toBe('Kill');
  });

  it('fits 360 pixels, in light and dark', async () => {
    await clockGuest('a-clock-of-some-length');
    const grounds: unknown[] = [];
    for (const dark of [false, true]) {
      const { page, troubles } = await open({ width: 360, dark });
      await expect.poll(() => hasLine(page, 'Guest time by the PIT', '--series-2'), { timeout: 20_000 }).toBe(true);
      await expect.poll(() => overflow(page)).toBe(0);
      grounds.push(await page.evaluate('getComputedStyle(document.body).backgroundColor'));
      await picture(page, `dashboard-narrow-${dark ? 'dark' : 'light'}`);
      expect(troubles).toEqual([]);
      await page.close();
    }
    expect(grounds).toEqual(['rgb(246, 247, 249)', 'rgb(15, 19, 24)']);
  });
});
