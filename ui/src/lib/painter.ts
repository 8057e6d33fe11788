/** Gathers text so that the page is painted at most every 50 ms, however fast tokens arrive. */

const INTERVAL = 50;

export class Painter {
  #pending = "";
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param paint takes the text gathered since it was last called */
  constructor(private readonly paint: (text: string) => void) {}

  /** The first text is painted at once, later text with what else comes in the interval. */
  add(text: string): void {
    if (!text) return;
    this.#pending += text;
    if (this.#timer !== undefined) return;
    this.flush();
    this.#timer = setTimeout(() => this.#tick(), INTERVAL);
  }

  flush(): void {
    if (this.#pending) this.paint(this.#pending);
    this.#pending = "";
  }

  /** Paints what is left and stops the clock. */
  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.flush();
  }

  #tick(): void {
    this.#timer = undefined;
    const text = this.#pending;
    this.#pending = "";
    this.add(text);
  }
}
