
"use strict";
(function () {
  const given = window.satfsTask || { task: { id: "", name: null }, scenes: [] };
  /** A picture lies where its rasters lie only if it has their shape, to this share. */
  const SAME_SHAPE = 0.02;
  /** From this zoom on the coarse outlines of the continents would mislead. */
  const LAND_MAX_ZOOM = 8;
  const byId = (id) => document.getElementById(id);

  /** Return a new element; text is only ever set as text. */
  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  const name = given.task.name ? given.task.name + " (" + given.task.id + ")" : given.task.id;
  document.title = name || "Scenes";
  byId("title").textContent = name || "Scenes";

  // -- the map ---------------------------------------------------------------------------------

  /** Move a longitude by whole turns next to *near*. */
  function nextTo(near, point) {
    return [point[0], point[1] - 360 * Math.round((point[1] - near) / 360)];
  }

  /** Return a ring, its first point next to *near*, that does not jump at the antimeridian. */
  function untorn(near, ring) {
    let last = near;
    return ring.map((point) => {
      const moved = nextTo(last, point);
      last = moved[1];
      return moved;
    });
  }

  /** Return the rings of land-110m.json (TopoJSON: arcs of differences, on a grid). */
  function landRings() {
    const topology = window.satfsLand;
    const scale = topology.transform.scale, move = topology.transform.translate;
    const arcs = topology.arcs.map((arc) => {
      let x = 0, y = 0;
      return arc.map((step) => {
        x += step[0];
        y += step[1];
        return [y * scale[1] + move[1], x * scale[0] + move[0]];
      });
    });
    const ring = (indexes) => untorn(0, indexes.flatMap((index) =>
      index < 0 ? arcs[~index].slice().reverse() : arcs[index]));
    return topology.objects.land.geometries.flatMap((geometry) =>
      geometry.arcs.map((polygon) => polygon.map(ring)));
  }

  /** A picture with its corners at given places, turned as the map projection has it. */
  const PlacedPicture = L.ImageOverlay.extend({
    initialize(url, corners, options) {
      this._corners = corners.map((corner) => L.latLng(corner));
      L.ImageOverlay.prototype.initialize.call(this, url, L.latLngBounds(this._corners), options);
    },
    _initImage() {
      L.ImageOverlay.prototype._initImage.call(this);
      this._image.classList.add("placed");
      L.DomEvent.on(this._image, "load", this._reset, this);
    },
    _fit(toPoint) {
      const image = this._image;
      const width = image.naturalWidth || 1, height = image.naturalHeight || 1;
      const [corner, right, down] = this._corners.map(toPoint);
      const numbers = [(right.x - corner.x) / width, (right.y - corner.y) / width,
        (down.x - corner.x) / height, (down.y - corner.y) / height, corner.x, corner.y];
      image.style.width = width + "px";
      image.style.height = height + "px";
      image.style.transform = "matrix(" + numbers.join(",") + ")";
    },
    _reset() {
      if (this._map) this._fit((place) => this._map.latLngToLayerPoint(place));
    },
    _animateZoom(change) {
      this._fit((place) => this._map._latLngToNewLayerPoint(place, change.zoom, change.center));
    },
  });

  const scenes = given.scenes.map((facts) => ({ facts, outline: null, picture: null }));

  /** Return some point of a scene, or null where none is known. */
  function somePoint(facts) {
    if (facts.outline) return facts.outline[0][0][0];
    if (facts.points) return facts.points[0];
    return facts.place ? facts.place.corners[0] : null;
  }

  const first = scenes.map((scene) => somePoint(scene.facts)).find((point) => point);
  const near = first ? first[1] : 0;
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const map = L.map("map", { zoomControl: true, attributionControl: false, maxZoom: 20, minZoom: 1,
    fadeAnimation: !still, zoomAnimation: !still, worldCopyJump: false });
  L.control.attribution({ prefix: '<a href="https://leafletjs.com">Leaflet 1.9.4</a>' })
    .addAttribution("land: Natural Earth, by world-atlas").addTo(map);
  L.control.scale().addTo(map);
  const rings = landRings();
  const drawn = { interactive: false, className: "land", weight: 1, fillOpacity: 1, color: "" };
  const worlds = () => [-360, 0, 360].map((turn) => L.polygon(rings.map((polygon) =>
    polygon.map((ring) => ring.map(([lat, lon]) => [lat, lon + turn]))), drawn));
  const land = L.layerGroup(worlds());
  map.on("zoomend", () => map.getZoom() < LAND_MAX_ZOOM ? land.addTo(map) : land.remove());

  const outlines = L.featureGroup().addTo(map);
  for (const scene of scenes) {
    const { outline, points } = scene.facts;
    const drawing = { className: "outline", weight: 2, fillOpacity: 0.08, color: "" };
    if (outline) {
      scene.outline = L.polygon(outline.map((polygon) =>
        polygon.map((ring) => untorn(near, ring))), drawing);
    } else if (points) {
      scene.outline = L.featureGroup(points.map((point) =>
        L.circleMarker(nextTo(near, point), { ...drawing, radius: 6 })));
    } else continue;
    scene.outline.bindTooltip(element("span", { textContent: scene.facts.id }));
    scene.outline.on("click", () => choose(scene, true));
    scene.outline.addTo(outlines);
  }
  if (outlines.getLayers().length) map.fitBounds(outlines.getBounds().pad(0.15));
  else map.setView(first || [0, 0], first ? 12 : 1);
  if (map.getZoom() < LAND_MAX_ZOOM) land.addTo(map);

  const overview = L.map("overview", { zoomControl: false, attributionControl: false,
    dragging: false, keyboard: false, zoomSnap: 0, minZoom: -2 });
  overview.setView([10, 0], -1);
  L.layerGroup(worlds()).addTo(overview);
  overview.fitBounds([[-60, -178], [80, 178]]);
  const dots = new Map();
  for (const scene of scenes) {
    const centre = scene.outline && scene.outline.getBounds().getCenter();
    const point = centre ? [centre.lat, centre.lng] : somePoint(scene.facts);
    if (!point) continue;
    const shown = nextTo(0, point);
    // One dot for all that it covers: a pixel of this map is two degrees.
    dots.set(shown.map((degrees) => Math.round(degrees / 4)).join(), shown);
  }
  for (const dot of dots.values()) {
    L.circleMarker(dot, { radius: 4, color: "#d6410b", fillOpacity: 1, interactive: false })
      .addTo(overview);
  }
  byId("overview").removeAttribute("tabindex");

  // -- the cards -------------------------------------------------------------------------------

  const number = (value, unit) => value === null ? null : Math.round(value * 100) / 100 + unit;

  function card(scene) {
    const facts = scene.facts;
    const rows = [
      ["Time", facts.time && facts.time.replace("T", " ").replace("Z", " UTC")],
      ["Product", facts.product],
      ["Clouds", number(facts.clouds, " %") || "not known"],
      ["Satellite", facts.platform],
      ["Pixel", number(facts.gsd, " m")],
      ["Off nadir", number(facts.offNadir, "°")],
    ].filter((row) => row[1]);
    const list = element("dl");
    for (const [term, value] of rows) {
      list.append(element("dt", { textContent: term }), element("dd", { textContent: value }));
    }
    scene.image = facts.thumbnail && element("img", { className: "picture", src: "",
      alt: "Preview of " + facts.id, loading: "lazy", decoding: "async" });
    const noPicture = () => element("p", { className: "picture", textContent: "no picture" });
    if (scene.image) {
      // The record announces pictures; whether they are there shows when one is loaded.
      scene.image.addEventListener("error", () => scene.image.replaceWith(noPicture()));
      scene.image.src = facts.thumbnail;
    }
    scene.note = element("p", { className: "note", hidden: true });
    const hasPlace = scene.outline || facts.place;
    scene.button = element("button", { type: "button", textContent: "Show on the map",
      disabled: !hasPlace });
    scene.button.setAttribute("aria-pressed", "false");
    scene.button.setAttribute("aria-label", "Show on the map: " + facts.id);
    scene.button.addEventListener("click", () =>
      scene.button.getAttribute("aria-pressed") === "true" ? choose(null) : choose(scene));
    if (!hasPlace) note(scene, "Where the scene lies is not known.");
    const link = (address, text) => {
      if (!address) return null;
      const made = element("a", { href: address, textContent: text });
      made.setAttribute("aria-label", text + ": " + facts.id);
      return made;
    };
    // A line may end behind an underscore: ids are longer than a card is wide.
    const heading = element("h2", {},
      ...facts.id.split(/(?<=_)/).flatMap((part) => [part, element("wbr")]));
    const article = element("article", {},
      scene.image || noPicture(),
      heading, list, scene.note,
      element("div", { className: "actions" }, scene.button, link(facts.preview, "Preview"),
        link(facts.directory, "Files"), link(facts.delivery, "Zip")));
    scene.card = element("li", { className: "scene" }, article);
    return scene.card;
  }

  function note(scene, text) {
    scene.note.textContent = text;
    scene.note.hidden = false;
  }

  let chosen = null;
  let placed = null;

  /** Show a scene on the map: its picture where its place is certain, and its outline. */
  function choose(scene, fromMap) {
    if (chosen) {
      chosen.card.classList.remove("chosen");
      chosen.button.setAttribute("aria-pressed", "false");
      if (chosen.outline && chosen.outline._path) chosen.outline._path.classList.remove("chosen");
    }
    if (placed) placed.remove();
    placed = null;
    chosen = scene;
    if (!scene) return;
    scene.card.classList.add("chosen");
    scene.button.setAttribute("aria-pressed", "true");
    if (scene.outline) {
      scene.outline.bringToFront();
      if (scene.outline._path) scene.outline._path.classList.add("chosen");
    }
    const place = scene.facts.place;
    if (fromMap) scene.card.scrollIntoView({ block: "nearest" });
    else if (scene.outline) map.fitBounds(scene.outline.getBounds().pad(0.2));
    else if (place) map.fitBounds(L.latLngBounds(place.corners.map((c) => nextTo(near, c))).pad(0.2));
    if (!scene.facts.preview) return;
    if (!place) {
      if (scene.outline) note(scene, "The outline only: where the picture lies is not certain.");
      return;
    }
    const picture = new Image();
    picture.addEventListener("load", () => {
      if (chosen !== scene) return;
      const shape = picture.naturalWidth / picture.naturalHeight;
      if (Math.abs(shape / place.aspect - 1) > SAME_SHAPE) {
        note(scene, "The outline only: the picture has another shape than the rasters.");
        return;
      }
      const corners = place.corners.map((corner) => nextTo(near, corner));
      placed = new PlacedPicture(scene.facts.preview, corners, { alt: "Preview of " + scene.facts.id })
        .addTo(map);
    });
    picture.src = scene.facts.preview;
  }

  const holder = byId("scenes");
  holder.append(...scenes.map(card));

  // -- filters ---------------------------------------------------------------------------------

  const products = [...new Set(scenes.map((scene) => scene.facts.product).filter(Boolean))].sort();
  byId("product").append(...products.map((product) =>
    element("option", { value: product, textContent: product })));

  function isWanted(facts) {
    const day = facts.time && facts.time.slice(0, 10);
    const from = byId("from").value, to = byId("to").value, most = Number(byId("clouds").value);
    return (!byId("product").value || facts.product === byId("product").value)
      && (!from || (day && day >= from)) && (!to || (day && day <= to))
      && (facts.clouds === null ? byId("unknown").checked : facts.clouds <= most);
  }

  function filter() {
    let n = 0;
    for (const scene of scenes) {
      const wanted = Boolean(isWanted(scene.facts));
      n += wanted;
      scene.card.hidden = !wanted;
      if (scene.outline) wanted ? scene.outline.addTo(outlines) : outlines.removeLayer(scene.outline);
      if (!wanted && chosen === scene) choose(null);
    }
    byId("clouds-shown").value = byId("clouds").value + " %";
    byId("count").textContent = n + " of " + scenes.length + (scenes.length === 1 ? " scene" : " scenes")
      + (given.unknown ? "; of " + given.unknown + " the delivery could not be looked into yet" : "");
  }

  byId("filters").addEventListener("input", filter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(filter, 0));
  filter();
})();
