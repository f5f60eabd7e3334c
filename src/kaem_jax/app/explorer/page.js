// The page. A picture is {latent, image, clusters}: D numbers, an address, a sentence or null.
// A view, of all clusters or of one, has `curves` of latents, {learned, base} as SVG paths, and `draws`, pictures.

"use strict";
{
  const { model, moves, views } = JSON.parse(document.getElementById("content").textContent);
  const known = new Map(moves.map((picture) => [String(picture.latent), picture]));
  let start = model.start; // of the chosen cluster
  let present = start;
  let controls = [];

  const byId = (id) => document.getElementById(id);

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name in element) element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function show(picture) {
    present = picture;
    byId("image").src = picture.image;
    byId("image").dataset.latent = picture.latent;
    byId("belongs").textContent = picture.clusters && `p(cluster | latents): ${picture.clusters}`;
    byId("belongs").hidden = !picture.clusters;
    controls.forEach(place);
    writeCode();
  }

  function writeCode() {
    const { latent } = present;
    const [rows, columns] = model.event_shape.length === 2 ? model.event_shape : [1, latent.length];
    const lines = Array.from({ length: rows }, (_, i) => `[${latent.slice(i * columns, (i + 1) * columns).join(", ")}]`);
    byId("code").textContent = [
      "import jax.numpy as jnp",
      "import kaem_jax as kaem",
      "",
      `model, params = kaem.load(${JSON.stringify(model.workdir)}, ${model.step})`,
      `z = jnp.array(${model.event_shape.length === 2 ? `[${lines.join(",\n               ")}]` : lines[0]})`,
      "image = model.decode(params, z)  # E[x | z]",
    ].join("\n");
  }

  // The place of a handle that is nearest to the present latent.
  function place(control) {
    const { values, index } = control.latent;
    const distances = values.map((value) => Math.abs(value - present.latent[index]));
    const k = distances.indexOf(Math.min(...distances));
    control.range.value = k;
    control.output.value = present.latent[index].toFixed(2);
    control.range.setAttribute("aria-valuetext", control.output.value);
  }

  function drawCurves(curves) {
    for (const control of controls) {
      for (const name of ["learned", "base"]) control[name].setAttribute("d", curves[control.latent.index][name]);
    }
  }

  function makeControl(latent) {
    const { index, name, values, share } = latent;
    const control = { latent };
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", "0 0 160 100");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    for (const part of ["learned", "base"]) {
      control[part] = document.createElementNS(space, "path");
      control[part].setAttribute("class", part);
      svg.append(control[part]);
    }
    control.range = make("input", { type: "range", min: 0, max: values.length - 1, step: 1, "aria-label": name });
    control.output = make("output");
    const title = [make("b", {}, name), make("span", { className: "share" }, share), control.output];
    const ends = [values[0], values[values.length - 1]].map((end) => make("span", {}, end.toFixed(1)));
    control.element = make(
      "div",
      { className: "latent" },
      make("div", { className: "head" }, ...title),
      make("div", { className: "curve" }, svg, control.range),
      make("div", { className: "ends" }, ...ends),
    );
    control.range.addEventListener("input", () => {
      const moved = start.latent.slice();
      moved[index] = values[control.range.value];
      show(known.get(String(moved)));
    });
    return control;
  }

  function showView(view) {
    drawCurves(view.curves);
    const buttons = view.draws.map((picture, i) => {
      const name = `draw ${i + 1}`;
      const button = make("button", { type: "button", title: name }, make("img", { src: picture.image, alt: name }));
      button.addEventListener("click", () => {
        for (const other of buttons) other.classList.toggle("chosen", other === button);
        show(picture);
      });
      return button;
    });
    byId("draws").replaceChildren(...buttons);
  }

  function addCluster(cluster, ...label) {
    const radio = make("input", { type: "radio", name: "cluster", value: cluster ? cluster.index : "all" });
    radio.checked = !cluster;
    radio.addEventListener("change", () => {
      start = cluster ? cluster.median : model.start;
      show(start);
      showView(views[cluster ? cluster.index : "all"]);
    });
    byId("clusters").append(make("label", {}, radio, ...label));
  }

  controls = model.latents.map(makeControl);
  byId("latents").append(...controls.map((control) => control.element));
  addCluster(null, "all clusters");
  for (const cluster of model.clusters) {
    addCluster(cluster, make("img", { src: cluster.median.image, alt: "" }), `${cluster.index} · ${cluster.share}`);
  }
  byId("clusters-section").hidden = !model.clusters.length;
  show(start);
  showView(views.all);
}
