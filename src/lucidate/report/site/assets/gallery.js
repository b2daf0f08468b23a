/* The gallery's behavior: light and dark, one Plotly figure a page, a closer look at tiles, arrow keys.
   No fetch and no module: the pages must open from a disk by double-click. */
(function () {
  "use strict";

  var KEY = "lucidate-theme";
  var root = document.documentElement;
  var systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  var shown = null; // {page, view}: what this page draws, once its data has come

  // ---- light and dark -------------------------------------------------------------------------------------------

  function recall() {
    try { return window.localStorage.getItem(KEY); } catch (error) { return null; } // storage may be forbidden
  }

  function remember(theme) {
    try { window.localStorage.setItem(KEY, theme); } catch (error) { /* then it lasts for this page */ }
  }

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
  }

  function toggle() {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    draw();
  }

  // Before the first paint, so that no page flashes white.
  function restore() {
    var saved = recall();
    if (saved === "light" || saved === "dark") root.dataset.theme = saved;
  }
  restore();
  systemDark.addEventListener("change", draw);
  window.addEventListener("pageshow", function (event) {
    if (event.persisted) { restore(); draw(); } // back from a page where the theme was changed
  });

  // ---- the figure -----------------------------------------------------------------------------------------------

  /* A deep copy with each color of the light palette replaced, wherever a key says that it holds colors. */
  function painted(value, dark, isColor) {
    if (typeof value === "string") return isColor && Object.hasOwn(dark, value) ? dark[value] : value;
    if (Array.isArray(value)) return value.map(function (item) { return painted(item, dark, isColor); });
    if (value === null || typeof value !== "object") return value;
    var copy = {};
    Object.keys(value).forEach(function (key) { copy[key] = painted(value[key], dark, /color/i.test(key)); });
    return copy;
  }

  function draw() {
    if (!shown) return;
    var page = shown.page;
    var figure = painted(page.figure, isDark() ? page.dark : {}, false);
    delete figure.layout.updatemenus; // drawn as buttons of the page instead
    // A finger on the figure scrolls the page; zooming would trap it there.
    var finger = window.matchMedia("(pointer: coarse)").matches;
    if (finger) figure.layout.dragmode = false;
    // Ten classes fit a phone if the numbers in their cells are small.
    var narrow = document.getElementById("plot").clientWidth < 520;
    if (narrow) figure.data.forEach(function (trace) { if (trace.type === "heatmap" && trace.textfont) trace.textfont.size = 9; });
    var config = {
      displaylogo: false,
      displayModeBar: page.sprite || finger || !figure.data.length ? false : "hover",
      plotlyServerURL: "", // nothing leaves this folder, so no button to upload a chart either
      modeBarButtonsToRemove: ["sendChartToCloud", "sendDataToCloud", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
      toImageButtonOptions: { filename: page.title, scale: 2 },
      responsive: true,
      typesetMath: false
    };
    var plot = document.getElementById("plot");
    return window.Plotly.react(plot, figure.data, figure.layout, config).then(function () {
      if (shown.view) return look(shown.view);
    });
  }

  /* Where the figure is wider than the screen, the cut edge fades and a line says so. */
  function offerSwipe() {
    var scroller = document.getElementById("scroller");
    var hint = document.getElementById("swipe");
    function tell() {
      var hidden = scroller.scrollWidth - scroller.clientWidth;
      hint.hidden = hidden < 8;
      scroller.classList.toggle("more", hidden - scroller.scrollLeft >= 8);
    }
    scroller.addEventListener("scroll", tell, { passive: true });
    new ResizeObserver(tell).observe(scroller);
    tell();
  }

  function buttonsOf(page) {
    var menus = page.figure.layout.updatemenus;
    return menus && menus.length ? menus[0].buttons : [];
  }

  function look(view) {
    shown.view = view;
    var buttons = document.querySelectorAll(".views button");
    buttons.forEach(function (button, place) { button.setAttribute("aria-pressed", String(place === view)); });
    var changes = painted(buttonsOf(shown.page)[view].args, {}, false); // Plotly keeps what it is given
    return window.Plotly.update(document.getElementById("plot"), changes[0], changes[1]);
  }

  function offerViews(page) {
    var views = buttonsOf(page);
    if (!views.length) return;
    var bar = document.createElement("div");
    bar.className = "views";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "What the figure shows");
    views.forEach(function (view, place) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = view.label;
      button.setAttribute("aria-pressed", String(place === 0));
      button.addEventListener("click", function () { look(place); });
      bar.append(button);
    });
    document.getElementById("tools").append(bar);
  }

  /* Called by a page's data file. page: {title, figure: {data, layout}, dark: {light: dark}, sprite}. */
  function page(data) {
    shown = { page: data, view: 0 };
    var plot = document.getElementById("plot");
    // A matrix of many classes is panned on a narrow screen rather than squeezed to dust.
    if (document.querySelector(".figure--matrix")) {
      var classes = data.figure.data[0].z.length;
      if (classes > 12) plot.style.minWidth = Math.min(900, 160 + 30 * classes) + "px";
      if (classes > 60) {
        plot.style.minWidth = 130 + 9.8 * classes + "px"; // or their names would lie on each other
        plot.style.maxWidth = "none";
      }
    }
    offerViews(data);
    draw().then(function () {
      offerSwipe();
      if (data.sprite) offerLoupe(data, plot);
    });
  }

  // ---- one tile, closer -----------------------------------------------------------------------------------------

  /* Lines of a Plotly hover text as plain text. */
  function lines(hover) {
    return hover.split("<br>").map(function (line) {
      return line.replace(/<\/?b>/g, "").replace(/ %/g, "\u00a0%").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
    });
  }

  function offerLoupe(data, plot) {
    var sprite = data.sprite;
    var words = data.figure.data[0].hovertext.flat();
    var answers = data.figure.data[0].customdata.flat();
    var cells = sprite.ids.map(function (id, cell) { return id === null ? -1 : cell; })
      .filter(function (cell) { return cell >= 0; });
    var at = 0;

    function part(tag, name, parent) {
      var element = document.createElement(tag);
      element.className = name;
      parent.append(element);
      return element;
    }

    var dialog = part("dialog", "loupe", document.body);
    dialog.setAttribute("aria-label", "One image, closer");
    var inside = part("div", "inside", dialog);
    var picture = part("span", "", part("div", "tile", inside));
    picture.style.width = picture.style.height = sprite.tile + "px";
    picture.style.backgroundImage = 'url("' + sprite.sheet + '")';
    var side = part("div", "words", inside);
    var text = part("div", "", side);
    text.setAttribute("aria-live", "polite");
    var keys = part("div", "keys", side);

    function show(place) {
      at = (place + cells.length) % cells.length;
      var column = cells[at] % sprite.columns, row = Math.floor(cells[at] / sprite.columns);
      picture.style.backgroundPosition =
        -column * (sprite.tile + sprite.gap[0]) + "px " + -row * (sprite.tile + sprite.gap[1]) + "px";
      var told = answers[cells[at]]; // [id, true class, predicted class]
      text.className = told[1] === told[2] ? "" : "wrong";
      text.replaceChildren.apply(text, lines(words[cells[at]]).map(function (line) {
        var paragraph = document.createElement("p");
        paragraph.textContent = line;
        return paragraph;
      }));
      if (!dialog.open) dialog.showModal();
    }

    [["←", "Previous image", function () { show(at - 1); }], ["→", "Next image", function () { show(at + 1); }],
      ["Close", "Close", function () { dialog.close(); }]].forEach(function (key) {
      var button = part("button", "", keys);
      button.type = "button";
      button.textContent = key[0];
      button.setAttribute("aria-label", key[1]);
      button.addEventListener("click", key[2]);
      button.autofocus = key[0] === "→";
    });
    dialog.addEventListener("keydown", function (event) {
      if (event.key === "ArrowLeft") show(at - 1);
      if (event.key === "ArrowRight") show(at + 1);
    });
    dialog.addEventListener("click", function (event) {
      if (event.target === dialog) dialog.close(); // the backdrop
    });
    plot.on("plotly_click", function (event) {
      var point = event.points[0].pointIndex; // [row, column] of the heatmap
      show(cells.indexOf(point[0] * sprite.columns + point[1]));
    });

    // The same for a keyboard, which cannot click a tile.
    var opener = part("button", "opener", document.getElementById("tools"));
    opener.type = "button";
    opener.textContent = "Look closer, one by one";
    opener.addEventListener("click", function () { show(at); });
  }

  // ---- keys -----------------------------------------------------------------------------------------------------

  document.addEventListener("keydown", function (event) {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    // Where arrows already mean something, they keep it.
    if (event.target.closest && event.target.closest("input, select, textarea, dialog, [tabindex]")) return;
    var rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
    var link = rel && document.querySelector('a[rel="' + rel + '"]');
    if (link) link.click();
  });

  document.addEventListener("DOMContentLoaded", function () {
    document.getElementById("theme").addEventListener("click", toggle);
  });

  window.lucidate = { page: page };
})();
