/** A view in tabs whose choice is in the address (`?tab=`). */
import { View, html, navigate, query, raw, render } from "./core.js";

/** Subclasses give `title`, `tabs` ({key: {label, icon, show(panel)}}) and may be entered at any of them. */
export class TabbedView extends View {
  begin(title, tabs, lead) {
    this.tabs = tabs;
    this.base = location.pathname;
    this.shown = null;
    render(
      this,
      html`<div class="tabbed"><header class="page-head"><div><h1>${title}</h1>${lead && html`<p>${lead}</p>`}</div></header>
        <div class="tabs" role="tablist" aria-label="${title}">${Object.entries(tabs).map(([key, tab]) => html`<button type="button" role="tab" id="tab-${key}" data-tab="${key}" aria-controls="panel-${key}" aria-selected="false">${tab.label}</button>`)}</div>
        <div data-panel></div></div>`,
    );
    this.on("click", "[data-tab]", (event, button) => navigate(`${this.base}?tab=${button.dataset.tab}`, { scroll: false }));
    this.on("keydown", "[data-tab]", (event, button) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const all = [...this.querySelectorAll("[data-tab]")];
      const next = all.at((all.indexOf(button) + step) % all.length);
      next.focus();
      next.click();
    });
    this.listen(window, "vs:navigate", () => location.pathname === this.base && this.#follow());
    this.#follow();
  }

  /** Draw the open tab again from fresh data. */
  reload() {
    this.shown = null;
    this.#follow();
  }

  #follow() {
    const wanted = query().get("tab");
    const key = wanted in this.tabs ? wanted : Object.keys(this.tabs)[0];
    if (key === this.shown) return;
    this.shown = key;
    this.panelController?.abort();
    this.panelController = new AbortController();
    for (const button of this.querySelectorAll("[data-tab]")) {
      button.setAttribute("aria-selected", String(button.dataset.tab === key));
      button.tabIndex = button.dataset.tab === key ? 0 : -1;
    }
    const panel = document.createElement("div");
    panel.id = `panel-${key}`;
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", `tab-${key}`);
    this.querySelector("[data-panel]").replaceChildren(panel);
    render(panel, html`<div class="stack"><div class="skeleton" style="${raw("height:180px")}"></div><div class="skeleton" style="${raw("height:120px")}"></div></div>`);
    this.tabs[key].show(panel, this.panelController.signal);
  }

  stop() {
    this.panelController?.abort();
  }
}
