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
    if (byId("row-filter")) {
      byId("row-filter").addEventListener("input", applyFilter);
      byId("task-filter").addEventListener("change", applyFilter);
      applyFilter();
    }
  }

  // Boxes that scroll sideways say so where they end -------------------------------------------
  const cue = (box) => {
    const rest = box.scrollWidth - box.clientWidth - box.scrollLeft;
    box.parentElement.classList.toggle("more-left", box.scrollLeft > 2);
    box.parentElement.classList.toggle("more-right", rest > 2);
  };
  const cued = [...document.querySelectorAll(".scroll")];
  for (const box of cued) {
    const frame = element("div", { className: "frame" });
    box.replaceWith(frame);
    frame.append(box);
    box.addEventListener("scroll", () => cue(box), { passive: true });
    new ResizeObserver(() => cue(box)).observe(box);
  }

  // Figures ------------------------------------------------------------------------------------
  const zoom = byId("zoom");
  const plates = [...document.querySelectorAll("button.plate")];
  let shownPlate = 0;
  const showPlate = (index) => {
    shownPlate = (index + plates.length) % plates.length;
    const figure = plates[shownPlate].closest("figure");
    byId("zoom-title").textContent = figure.querySelector("h3").textContent;
    byId("zoom-plate").replaceChildren(figure.querySelector("img").cloneNode());
    for (const id of ["zoom-before", "zoom-next"]) byId(id).hidden = plates.length < 2;
  };
  plates.forEach((plate, index) => plate.addEventListener("click", () => { showPlate(index); zoom.showModal(); }));
  byId("zoom-before").addEventListener("click", () => showPlate(shownPlate - 1));
  byId("zoom-next").addEventListener("click", () => showPlate(shownPlate + 1));
  byId("zoom-close").addEventListener("click", () => zoom.close());
  zoom.addEventListener("click", (event) => { if (event.target === zoom) zoom.close(); });
  zoom.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) showPlate(shownPlate + step);
  });

  // Documents -----------------------------------------------------------------------------------
  const data = JSON.parse(byId("documents-data").textContent);
  const state = { task: null, document: null };
  const mark = { pass: "✓", fail: "✗" };
  const kind = (verdict) => (verdict === "pass" || verdict === "fail" ? verdict : "other");

  // The head that proposed each token: head 1 writes the first token and ends every step; before
  // that, a step's verified drafts come from heads 2, 3, … in order. Drafts that it rejected stand
  // with the token that head 1 wrote in place of the first of them.
  const tokensOf = (answer) => {
    const tokens = [{ head: 1, step: 0, first: false, rejected: [] }];
    let at = 0;
    answer.n_verified.forEach((verified, index) => {
      const drafted = answer.n_drafted ? answer.n_drafted[index] : answer.draft_heads - 1;
      const rejected = answer.rejected.slice(at, at += Math.max(0, drafted - verified));
      for (let draft = 0; draft <= verified; draft += 1) {
        const head = draft < verified ? draft + 2 : 1;
        tokens.push({ head, step: index + 1, first: draft === 0, verified, rejected: head === 1 ? rejected : [] });
      }
    });
    return tokens.slice(0, answer.n_characters.length);
  };

  const rejectedDraft = (text, head) => {
    const made = element("del", { textContent: text.replaceAll("\n", "↵") || "∅", title: `head ${head}: rejected` });
    made.className = head > 4 ? "far" : "";
    made.dataset.head = head;
    return made;
  };

  const coloured = (text, answer) => {
    const characters = Array.from(text);
    const pre = element("pre", { dir: "auto", tabIndex: 0 });
    let at = 0;
    tokensOf(answer).forEach(({ head, step, first, verified, rejected }, index) => {
      const end = Math.min(at + answer.n_characters[index], characters.length);
      const piece = characters.slice(at, end).join("");
      at = end;
      if (piece === "") return;
      const accepted = verified === 1 ? "1 draft accepted" : `${verified} drafts accepted`;
      const where = step === 0 ? "from the prompt’s own forward" : `step ${step}, ${accepted}`;
      rejected.forEach((draft, place) => pre.append(rejectedDraft(draft, verified + 2 + place)));
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
    if (answer.lossless === false) said.push("lossy: drafts were not verified");
    for (const [name, value] of answer.scores) said.push(`${name.replaceAll("_", " ")} ${value}`);
    return said.join(" · ");
  };

  const answerCard = (answer) => {
    const run = data.runs[answer.run];
    const header = element("header", {}, element("h4", { textContent: run }));
    header.className = answer.text === null || !state.task.has_text ? "last" : "";
    if (answer.verdict) {
      header.append(element("span", { className: `tag ${kind(answer.verdict)}`, textContent: answer.verdict }));
    }
    header.append(element("span", { className: "soft small", textContent: described(answer) }));
    const card = element("article", { className: "answer" }, header);
    if (answer.detail) card.append(element("p", { className: "small", textContent: answer.detail }));
    if (answer.text !== null && state.task.has_text) {
      const text = data.texts[answer.text];
      if (text === "") card.append(element("p", { className: "soft small", textContent: "The answer is empty." }));
      else card.append(answer.n_characters && answer.draft_heads > 1 ? coloured(text, answer) : plain(text));
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
    return element("div", { className: "legend" }, "proposed by", ...parts,
      answers.some((one) => one.rejected.length) ? element("del", { textContent: "rejected" }) : "", "a thin line begins a step");
  };

  const showDocument = () => {
    const detail = byId("detail");
    const one = state.document;
    if (!one) { detail.replaceChildren(element("p", { className: "soft", textContent: "No document matches." })); return; }
    detail.replaceChildren(
      ...[element("h3", { textContent: one.title }),
        one.prompt === null || !state.task.has_text ? null : element("details", { open: true },
          element("summary", { textContent: one.answers.some((answer) => answer.text !== null || answer.choices.length) ? "Prompt" : "Text that the model read" }), element("div", { className: "answer prompt" }, plain(data.texts[one.prompt]))),
        legend(one.answers),
        ...one.answers.map(answerCard),
        one.target === null || !state.task.has_text ? null : element("details", {},
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
    const choose = () => {
      state.task = data.tasks[Number(chooser.value)];
      const answers = state.task.documents.flatMap((one) => one.answers);
      byId("verdict").hidden = !answers.some((answer) => answer.verdict);
      for (const id of ["show-rejected", "number-heads"]) {
        byId(id).parentElement.hidden = !answers.some((answer) => answer.n_characters && answer.draft_heads > 1);
      }
      const silent = !data.tasks.some((one) => one.has_text) ? "" : !state.task.has_text ? "The texts of these samples were not kept: only their scores are here."
        : answers.every((answer) => answer.text === null && !answer.choices.length) ? "This task generates no text: it measures the model on given texts." : "";
      byId("without-text").textContent = silent;
      byId("without-text").hidden = silent === "";
      listDocuments();
    };
    chooser.addEventListener("change", choose);
    byId("document-filter").addEventListener("input", listDocuments);
    byId("verdict-filter").addEventListener("change", listDocuments);
    byId("number-heads").addEventListener("change", (event) => byId("detail").classList.toggle("numbered", event.target.checked));
    byId("show-rejected").addEventListener("change", (event) => byId("detail").classList.toggle("kept-only", !event.target.checked));
    byId("document-list").addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
      const options = [...byId("document-list").children];
      const at = options.findIndex((option) => option.document === state.document);
      const next = event.key === "Home" ? 0 : event.key === "End" ? options.length - 1 : step ? at + step : -1;
      if (!options[next]) return;
      event.preventDefault();
      select(options[next].document, true);
    });
    chooser.value = Math.max(0, data.tasks.findIndex((task) => task.has_text));
    choose();
  }
})();
