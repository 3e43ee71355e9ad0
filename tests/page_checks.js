// SPDX-License-Identifier: BSD-3-Clause
// What the WCAG (2.2, AA) ask of a page and a program can see, looked for in this one as it is at this moment: says
// what it found amiss. Of text on pictures or behind other elements it knows nothing.
'use strict';

const CONTROLS = 'a[href], button, input, select, textarea, summary, [tabindex="0"]';
const ROLES = ['alert', 'group', 'img', 'status'];
const TARGET = 24; // CSS pixels

const described = (node) => `<${node.localName}${['id', 'class'].filter((name) => node.getAttribute(name))
  .map((name) => ` ${name}=${node.getAttribute(name)}`).join('')}>`;
const isShown = (node) => node.checkVisibility({ visibilityProperty: true });
const shown = (selector) => [...document.querySelectorAll(selector)].filter(isShown);
const textOf = (node) => node.textContent.replace(/\s+/g, ' ').trim();

/* What is read out of a node's content. */
function spoken(node) {
  if (node.nodeType === Node.TEXT_NODE) return node.data;
  if (node.nodeType !== Node.ELEMENT_NODE || node.getAttribute('aria-hidden') === 'true' || !isShown(node)) return '';
  return [...node.childNodes].map(spoken).join(' ');
}

function nameOf(node) {
  const ids = node.getAttribute('aria-labelledby')?.split(/\s+/) ?? [];
  const byOthers = ids.map((id) => document.getElementById(id)).filter(Boolean).map(textOf).join(' ');
  const byLabels = [...(node.labels ?? [])].map(textOf).join(' ');
  const own = node.matches('select, input, textarea, svg, [role=group]') ? '' : spoken(node);
  return (byOthers || node.getAttribute('aria-label') || byLabels || own).replace(/\s+/g, ' ').trim();
}

function* structureFindings() {
  if (!document.documentElement.lang) yield 'the page has no language';
  if (!document.title) yield 'the page has no title';
  if (/user-scalable|maximum-scale/.test(document.querySelector('meta[name=viewport]')?.content ?? 'user-scalable')) {
    yield 'the page cannot be zoomed';
  }
  for (const landmark of ['body > header', 'body > main', 'body > footer']) {
    const n = document.querySelectorAll(landmark).length;
    if (n !== 1) yield `there are ${n} of ${landmark}`;
  }
  for (const role of ['status', 'alert']) {
    if (!document.querySelector(`[role=${role}]`)) yield `there is no live region with role ${role}`;
  }
  const levels = shown('h1, h2, h3, h4, h5, h6').map((node) => Number(node.localName[1]));
  if (levels.filter((level) => level === 1).length !== 1 || levels[0] !== 1) yield `headings are of levels ${levels}`;
  for (let i = 1; i < levels.length; i++) if (levels[i] > levels[i - 1] + 1) yield `headings jump: ${levels}`;
  const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
  for (const id of new Set(ids)) if (ids.indexOf(id) !== ids.lastIndexOf(id)) yield `the id ${id} is there twice`;
}

function* nameFindings() {
  for (const node of shown(`${CONTROLS}, [role=img], [role=group], dialog, section`)) {
    if (!nameOf(node)) yield `${described(node)} has no name`;
  }
  for (const node of shown(CONTROLS)) {
    if (node.closest('[aria-hidden=true]')) yield `${described(node)} is hidden from those who hear the page`;
    const label = node.getAttribute('aria-label'), text = node.localName === 'button' ? spoken(node).trim() : '';
    if (label && text && !label.startsWith(text.split(' ')[0])) yield `${described(node)} is named unlike its text`;
  }
  for (const node of document.querySelectorAll('[role]')) {
    if (!ROLES.includes(node.getAttribute('role'))) yield `${described(node)} has an unexpected role`;
  }
  for (const attribute of ['aria-labelledby', 'aria-describedby', 'aria-controls', 'for']) {
    for (const node of document.querySelectorAll(`[${attribute}]`)) {
      for (const id of node.getAttribute(attribute).split(/\s+/)) {
        if (!document.getElementById(id)) yield `${described(node)}: ${attribute} names ${id}, which is not there`;
      }
    }
  }
  for (const attribute of ['aria-expanded', 'aria-hidden', 'aria-busy', 'aria-disabled']) {
    for (const node of document.querySelectorAll(`[${attribute}]`)) {
      const value = node.getAttribute(attribute);
      if (!['true', 'false'].includes(value)) yield `${described(node)}: ${attribute} is neither true nor false`;
    }
  }
  for (const node of document.querySelectorAll('[tabindex]')) {
    if (node.tabIndex > 0) yield `${described(node)} has a positive tabindex`;
  }
}

function* sizeFindings() {
  for (const node of shown(CONTROLS)) {
    const { width, height } = node.getBoundingClientRect();
    if (Math.min(width, height) < TARGET) yield `${described(node)} is ${width} x ${height}`;
  }
  const { clientWidth: room, scrollWidth: wide } = document.documentElement;
  if (wide > room) yield `the page is ${wide} wide, there are ${room}`;
  for (const node of shown('body *:not(.unseen)')) {
    const { left, right } = node.getBoundingClientRect();
    if (left < -0.5 || right > room + 0.5) yield `${described(node)} reaches from ${left} to ${right} of ${room}`;
  }
}

/* ---------------------------------------------------------------------------------------------------- contrast */

/* [red, green, blue, alpha] of a computed colour, rgb() or rgba(). */
function colour(text) {
  const parts = text.match(/^rgba?\(([^)]*)\)$/)?.[1].split(/[ ,/]+/).map(Number);
  if (!parts) throw new Error(`what colour is ${text}?`);
  return [...parts.slice(0, 3), parts[3] ?? 1];
}

const over = ([r, g, b, a], below) => [...[r, g, b].map((x, i) => x * a + below[i] * (1 - a)), 1];

function backgroundOf(node) {
  if (!node) return colour('rgb(255, 255, 255)');
  const own = colour(getComputedStyle(node).backgroundColor);
  return own[3] === 1 ? own : over(own, backgroundOf(node.parentElement));
}

function luminance(c) {
  const linear = (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = c.slice(0, 3).map((x) => linear(x / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a, b) {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

function* contrastFindings() {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || node.matches('script, style') || !isShown(node)) continue;
    const style = getComputedStyle(node), size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const below = backgroundOf(node);
    const found = contrast(over(colour(node.ownerSVGElement ? style.fill : style.color), below), below);
    if (found < needed) yield `${described(node)} has a contrast of ${found.toFixed(2)}, not ${needed}`;
  }
  for (const node of shown('#options button, select, input')) {
    const found = contrast(colour(getComputedStyle(node).borderTopColor), backgroundOf(node.parentElement));
    if (found < 3) yield `the edge of ${described(node)} has a contrast of ${found.toFixed(2)}, not 3`;
  }
}

const findings = () => [structureFindings, nameFindings, sizeFindings, contrastFindings].flatMap((find) => [...find()]);

/* ------------------------------------------------------------------------------------------------------- focus */

/* What has the focus: which control of the page it is (-1: none), and whether that can be seen. */
function focus() {
  const node = document.activeElement, style = getComputedStyle(node);
  const { top, bottom } = node.getBoundingClientRect();
  const isMarked = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2
    && contrast(colour(style.outlineColor), backgroundOf(node.parentElement)) >= 3;
  const isInView = bottom > 0 && top < innerHeight;
  return { node: described(node), place: shown(CONTROLS).indexOf(node), isMarked, isInView };
}
