/** What frames the views: sidebar and settings, open or not. */

const WIDE = matchMedia("(min-width: 52rem)");

class Shell {
  sidebarOpen = $state(WIDE.matches);
  settingsOpen = $state(false);
  /** Which field of the settings to start at. */
  settingsFocus: "apiKey" | null = $state(null);
  /** On narrow screens the sidebar lies over the page, as a drawer. */
  isNarrow = $state(!WIDE.matches);

  constructor() {
    WIDE.addEventListener("change", ({ matches }) => {
      this.isNarrow = !matches;
      this.sidebarOpen = matches;
    });
  }

  openSettings(focus: "apiKey" | null = null): void {
    this.settingsFocus = focus;
    this.settingsOpen = true;
  }

  /** Closes what covers the view after a choice in it was made. */
  closeDrawer(): void {
    if (this.isNarrow) this.sidebarOpen = false;
  }
}

export const shell = new Shell();
