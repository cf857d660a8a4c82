// In a command that is wrapped, `--option` stays in one piece: browsers would break it after a hyphen.
for (const code of document.querySelectorAll(":is(.language-sh, .language-console) pre > code")) {
  const walker = document.createTreeWalker(code, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) texts.push(walker.currentNode);
  for (const text of texts) {
    const parts = text.data.split(/((?<=^|\s)-[^\s=]+)/);
    if (parts.length === 1) continue;
    text.replaceWith(...parts.map((part, at) => {
      if (at % 2 === 0) return part;
      const span = document.createElement("span");
      span.className = "option";
      span.textContent = part;
      return span;
    }));
  }
}
