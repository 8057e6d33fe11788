/** Keeps the end of growing text in view, unless the reader has scrolled away from it. */

const NEAR_END = 40;

export class Follow {
  /** Whether the end is followed; false once the reader has scrolled up. */
  pinned = $state(true);
  #element: HTMLElement | undefined;
  #lastTop = 0;

  /** @param hasText false while there is only a page to be read from its top */
  constructor(private readonly hasText: () => boolean) {}

  /** Attachment for the scrolling element; its first child is what grows. */
  readonly attach = (element: HTMLElement): (() => void) => {
    this.#element = element;
    const observer = new ResizeObserver(() => this.pinned && this.hasText() && this.toEnd());
    observer.observe(element);
    if (element.firstElementChild) observer.observe(element.firstElementChild);
    element.addEventListener("scroll", this.#onScroll, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", this.#onScroll);
    };
  };

  /** Goes to the end and follows it from there. */
  toEnd(): void {
    this.pinned = true;
    if (!this.#element) return;
    this.#element.scrollTop = this.#element.scrollHeight;
    this.#lastTop = this.#element.scrollTop;
  }

  // Told apart by position: growing text never lowers scrollTop, a reader who scrolls up does.
  readonly #onScroll = (): void => {
    if (!this.#element) return;
    const { scrollTop, scrollHeight, clientHeight } = this.#element;
    if (scrollTop < this.#lastTop) this.pinned = !this.hasText();
    if (scrollHeight - scrollTop - clientHeight < NEAR_END) this.pinned = true;
    this.#lastTop = scrollTop;
  };
}
