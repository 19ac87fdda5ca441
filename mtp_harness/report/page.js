"use strict";
// Everything a model wrote enters the page through textContent, never as markup.
(() => {
  const byId = (id) => document.getElementById(id);
  const element = (name, properties = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key in made) made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  };

  // Theme ---------------------------------------------------------------------------------------
  const themes = ["auto", "light", "dark"];
  const remembered = () => { try { return localStorage.getItem("mtp-theme"); } catch { return null; } };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let theme = themes.includes(remembered()) ? remembered() : "auto";
  const applyTheme = () => {
    const shown = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
    document.documentElement.dataset.theme = shown;
    byId("theme").textContent = `Theme: ${theme}`;
  };
  byId("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem("mtp-theme", theme); } catch { /* a file without storage */ }
    applyTheme();
  });
  dark.addEventListener("change", applyTheme);
  applyTheme();

  // Leaderboard ---------------------------------------------------------------------------------
  const board = byId("board");
  if (board) {
    const body = board.tBodies[0];
    const rows = [...body.rows];
    const key = (row, column) => {
      const text = row.cells[column].dataset.value;
      const number = Number(text);
      return text === "" || text === undefined ? null : Number.isNaN(number) ? text.toLowerCase() : number;
    };
    // What has no value stays at the end, whichever way the rest is sorted.
    const compare = (a, b, sign) =>
      a === null || b === null ? (a === null) - (b === null) : sign * (a > b ? 1 : a < b ? -1 : 0);
    for (const header of board.querySelectorAll("th[data-column]")) {
      header.querySelector("button").addEventListener("click", () => {
        const column = Number(header.dataset.column);
        const before = header.getAttribute("aria-sort");
        const first = header.dataset.first;
        const next = before === null ? first : before === "ascending" ? "descending" : "ascending";
        for (const other of board.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        body.append(...[...rows].sort((a, b) => compare(key(a, column), key(b, column), sign)));
      });
    }
    const applyFilter = () => {
      const words = byId("row-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.dataset.words;
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      const task = byId("task-filter").value;
      for (const cell of board.querySelectorAll("[data-task]")) {
        cell.hidden = task !== "" && cell.dataset.task !== "" && cell.dataset.task !== task;
      }
      byId("row-count").textContent = `${shown} of ${rows.length} rows`;
    };
    byId("row-filter").addEventListener("input", applyFilter);
    byId("task-filter").addEventListener("change", applyFilter);
    applyFilter();
  }

  // Documents -----------------------------------------------------------------------------------
  const data = JSON.parse(byId("documents-data").textContent);
  const state = { task: null, document: null };
  const mark = { pass: "✓", fail: "✗" };
  const kind = (verdict) => (verdict === "pass" || verdict === "fail" ? verdict : "other");

  // The head that proposed each token: head 1 writes the first token and ends every step; before
  // that, a step's verified drafts come from heads 2, 3, … in order.
  const headsOf = (answer) => {
    const heads = [{ head: 1, step: 0, first: false }];
    answer.n_verified.forEach((verified, index) => {
      for (let draft = 0; draft <= verified; draft += 1) {
        heads.push({ head: draft < verified ? draft + 2 : 1, step: index + 1, first: draft === 0 });
      }
    });
    return heads.slice(0, answer.n_characters.length);
  };

  const coloured = (text, answer) => {
    const characters = Array.from(text);
    const pre = element("pre", { dir: "auto", tabIndex: 0 });
    let at = 0;
    headsOf(answer).forEach(({ head, step, first }, index) => {
      const end = Math.min(at + answer.n_characters[index], characters.length);
      const piece = characters.slice(at, end).join("");
      at = end;
      if (piece === "") return;
      const where = step === 0 ? "the prompt's own forward" : `step ${step}, ${answer.n_verified[step - 1]} drafts accepted`;
      const token = element("span", { textContent: piece, title: `head ${head}: ${where}` });
      token.className = `token${first ? " first" : ""}${head > 4 ? " far" : ""}${piece.startsWith("\n") ? " line" : ""}`;
      token.dataset.head = head;
      pre.append(token);
    });
    pre.append(characters.slice(at).join(""));
    return pre;
  };

  const plain = (text) => element("pre", { textContent: text, dir: "auto", tabIndex: 0 });
  const described = (answer) => {
    const said = [];
    if (answer.tokens_per_forward !== null) said.push(`${answer.tokens_per_forward.toFixed(2)} tokens per forward`);
    if (answer.ended_by) said.push(`ended by ${answer.ended_by}`);
    if (answer.looping) said.push("repeats itself");
    if (answer.lossless === false) said.push("LOSSY: drafts unverified");
    for (const [name, value] of answer.scores) said.push(`${name} ${value}`);
    return said.join(" · ");
  };

  const answerCard = (answer) => {
    const run = data.runs[answer.run];
    const header = element("header", {}, element("h4", { textContent: run }));
    if (answer.verdict) {
      header.append(element("span", { className: `tag ${kind(answer.verdict)}`, textContent: answer.verdict }));
    }
    header.append(element("span", { className: "soft small", textContent: described(answer) }));
    const card = element("article", { className: "answer" }, header);
    if (answer.detail) card.append(element("p", { className: "small", textContent: answer.detail }));
    if (answer.text !== null) {
      const text = data.texts[answer.text];
      card.append(answer.n_characters && answer.draft_heads > 1 ? coloured(text, answer) : plain(text));
    }
    if (answer.choices.length) card.append(choices(answer.choices));
    if (answer.n_more) {
      card.append(element("p", { className: "soft small", textContent: `${answer.n_more} more answers are in the samples file.` }));
    }
    return card;
  };

  const choices = (all) => {
    const best = Math.max(...all.map((one) => one.logprob ?? -Infinity));
    const body = element("tbody", {}, ...all.map((one) => {
      const row = element("tr", {}, element("td", { textContent: data.texts[one.text] }),
        element("td", { className: "number", textContent: one.logprob === null ? "–" : one.logprob.toFixed(2) }));
      if (one.logprob === best) row.className = "best";
      return row;
    }));
    const head = element("thead", {}, element("tr", {}, element("th", { textContent: "choice", scope: "col" }),
      element("th", { textContent: "log-likelihood, nats", scope: "col", className: "number" })));
    return element("div", { className: "scroll" }, element("table", { className: "numbers" }, head, body));
  };

  const legend = (answers) => {
    const heads = Math.max(0, ...answers.filter((one) => one.n_characters).map((one) => one.draft_heads));
    if (heads < 2) return null;
    const parts = [];
    for (let head = 1; head <= Math.min(heads, 4); head += 1) {
      const swatch = element("span", { className: "token", textContent: head === 1 ? " head 1 " : ` head ${head} ` });
      swatch.dataset.head = head;
      parts.push(swatch);
    }
    if (heads > 4) {
      const far = element("span", { className: "token far", textContent: ` heads 5 to ${heads} ` });
      far.dataset.head = 5;
      parts.push(far);
    }
    return element("div", { className: "legend" }, "proposed by", ...parts, "· a thin line begins a step");
  };

  const showDocument = () => {
    const detail = byId("detail");
    const one = state.document;
    if (!one) { detail.replaceChildren(element("p", { className: "soft", textContent: "No document matches." })); return; }
    detail.replaceChildren(
      ...[element("h3", { textContent: one.title }),
        one.prompt === null ? null : element("details", { open: true },
          element("summary", { textContent: "Prompt" }), element("div", { className: "answer prompt" }, plain(data.texts[one.prompt]))),
        legend(one.answers),
        ...one.answers.map(answerCard),
        one.target === null ? null : element("details", {},
          element("summary", { textContent: "Reference" }), element("div", { className: "answer" }, plain(data.texts[one.target])))]
        .filter((part) => part !== null));
  };

  const select = (documentOf, focus) => {
    state.document = documentOf;
    for (const option of byId("document-list").children) {
      const chosen = option.document === documentOf;
      option.setAttribute("aria-selected", chosen);
      if (chosen) {
        byId("document-list").setAttribute("aria-activedescendant", option.id);
        if (focus) option.scrollIntoView({ block: "nearest" });
      }
    }
    showDocument();
  };

  const matches = (one) => {
    const words = byId("document-filter").value.toLowerCase();
    const verdict = byId("verdict-filter").value;
    const verdicts = one.answers.map((answer) => answer.verdict).filter(Boolean);
    if (verdict === "differ" && new Set(verdicts).size < 2) return false;
    if (verdict !== "" && verdict !== "differ" && !verdicts.some((v) => kind(v) === verdict)) return false;
    if (words === "") return true;
    const texts = [one.title, data.texts[one.prompt] ?? "", ...one.answers.map((a) => data.texts[a.text] ?? "")];
    return texts.some((text) => text.toLowerCase().includes(words));
  };

  const listDocuments = () => {
    const found = state.task ? state.task.documents.filter(matches) : [];
    byId("document-list").replaceChildren(...found.map((one, index) => {
      const marks = element("span", { className: "marks" }, ...one.answers.filter((a) => a.verdict).map((a) =>
        element("span", { className: kind(a.verdict), textContent: mark[a.verdict] ?? "?", title: `${data.runs[a.run]}: ${a.verdict}` })));
      const option = element("div", { role: "option", id: `document-${index}` }, element("span", { textContent: one.title }), marks);
      option.document = one;
      option.addEventListener("click", () => select(one, false));
      return option;
    }));
    const total = state.task ? state.task.documents.length : 0;
    const left = state.task ? state.task.n_left_out : 0;
    byId("document-count").textContent = `${found.length} of ${total} documents` + (left ? `; ${left} more are in the samples files` : "");
    select(found.includes(state.document) ? state.document : found[0] ?? null, false);
  };

  if (data.tasks.length) {
    const chooser = byId("document-task");
    data.tasks.forEach((task, index) => chooser.append(element("option", { value: index, textContent: task.name })));
    const choose = () => { state.task = data.tasks[Number(chooser.value)]; listDocuments(); };
    chooser.addEventListener("change", choose);
    byId("document-filter").addEventListener("input", listDocuments);
    byId("verdict-filter").addEventListener("change", listDocuments);
    byId("number-heads").addEventListener("change", (event) => byId("detail").classList.toggle("numbered", event.target.checked));
    byId("document-list").addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
      const options = [...byId("document-list").children];
      const at = options.findIndex((option) => option.document === state.document);
      const next = event.key === "Home" ? 0 : event.key === "End" ? options.length - 1 : step ? at + step : -1;
      if (!options[next]) return;
      event.preventDefault();
      select(options[next].document, true);
    });
    choose();
  }
})();
