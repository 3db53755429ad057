/**
 * A machine's console in a terminal of xterm's. The terminal takes every key, Tab too, so it is entered on purpose (Enter, or a click) and
 * left by Ctrl-], as the command's console is: nobody who uses the keyboard alone is caught in it.
 */
import { FitAddon } from './vendor/addon-fit.js';
import { Terminal } from './vendor/xterm.js';
import { make, setText } from './elements.js';
import type { Link } from './link.js';

const ROWS = 24;
const SCROLLBACK_LINES = 10_000;
const FONT_PX = 13;
const LEAVE = { key: ']', code: 'BracketRight' };

/** Control sequences that a terminal answers: DA1 to DA3, DSR, XTVERSION, DECRQM (xterm's control sequences). */
const QUESTIONS = [
  { final: 'c' },
  { prefix: '>', final: 'c' },
  { prefix: '=', final: 'c' },
  { final: 'n' },
  { prefix: '?', final: 'n' },
  { prefix: '>', final: 'q' },
  { intermediates: '$', final: 'p' },
  { prefix: '?', intermediates: '$', final: 'p' },
] as const;

export class ConsoleView {
  readonly element: HTMLElement;
  readonly #terminal = new Terminal({
    rows: ROWS,
    scrollback: SCROLLBACK_LINES,
    fontSize: FONT_PX,
    fontFamily: 'ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace',
    // A guest may write links; none of them is followed.
    linkHandler: { activate: () => undefined },
    theme: { background: '#10141a', foreground: '#e6e9ed' },
  });
  readonly #fit = new FitAddon();
  readonly #screen = make('div');
  readonly #frame: HTMLElement;
  readonly #state = make('p', { class: 'hint', role: 'status' });
  readonly #resizes: ResizeObserver;
  readonly #console: { type(bytes: Uint8Array): void; close(): void };

  constructor(name: string, link: Link) {
    const label = `Console of ${name}: Enter to type, Control and ] to leave`;
    this.#frame = make('div', { class: 'console', role: 'group', tabindex: '0', 'aria-label': label }, this.#screen);
    this.element = make('section', { class: 'panel wide' }, make('h3', {}, 'Console'), this.#state, this.#frame);
    this.#terminal.loadAddon(this.#fit);
    this.#terminal.attachCustomKeyEventHandler((event) => this.#keepsKey(event));
    this.#answerNothing();
    this.#frame.addEventListener('keydown', (event) => {
      if (event.target !== this.#frame || event.key !== 'Enter') return;
      event.preventDefault();
      this.#terminal.focus();
    });
    this.#resizes = new ResizeObserver(() => this.#adapt());
    this.#tell();
    this.#console = link.openConsole(name, {
      show: (bytes) => this.#terminal.write(bytes),
      restarted: () => this.#terminal.reset(),
      ended: (failure) =>
        setText(this.#state, failure === undefined ? 'The console has ended.' : `No console: ${failure.message}`),
      full: (lostBytes) => setText(this.#state, `The guest takes no input: ${lostBytes} bytes were dropped.`),
    });
    const encoder = new TextEncoder();
    this.#terminal.onData((text) => this.#console.type(encoder.encode(text)));
    this.#terminal.onBinary((text) => this.#console.type(Uint8Array.from(text, (char) => char.charCodeAt(0))));
  }

  /** Once it stands in the page. */
  open(): void {
    this.#terminal.open(this.#screen);
    // Tab does not lead into it: Enter does.
    this.#terminal.textarea?.setAttribute('tabindex', '-1');
    this.#terminal.textarea?.addEventListener('focus', () => this.#tell(true));
    this.#terminal.textarea?.addEventListener('blur', () => this.#tell());
    this.#resizes.observe(this.#frame);
    this.#adapt();
  }

  close(): void {
    this.#resizes.disconnect();
    this.#console.close();
    this.#terminal.dispose();
  }

  #adapt(): void {
    const columns = this.#fit.proposeDimensions()?.cols;
    if (columns !== undefined && columns > 0 && columns !== this.#terminal.cols) this.#terminal.resize(columns, ROWS);
  }

  #tell(isTyped = false): void {
    setText(this.#state, isTyped ? 'Keys go to the guest; Ctrl-] leaves.' : 'Enter, or a click, to type.');
  }

  /** False: the key is none of the terminal's. */
  #keepsKey(event: KeyboardEvent): boolean {
    if (!event.ctrlKey || (event.key !== LEAVE.key && event.code !== LEAVE.code)) return true;
    event.preventDefault();
    if (event.type === 'keydown') this.#frame.focus();
    return false;
  }

  /**
   * A guest's questions about its terminal (device status, attributes, colours) stay unanswered: each viewer would type an answer, and
   * what was shown before would be answered again.
   */
  #answerNothing(): void {
    const { parser } = this.#terminal;
    for (const question of QUESTIONS) parser.registerCsiHandler(question, () => true);
    parser.registerDcsHandler({ intermediates: '$', final: 'q' }, () => true);
    for (const colour of [4, 10, 11, 12]) {
      parser.registerOscHandler(colour, (data) => data.includes('?'));
    }
  }
}
