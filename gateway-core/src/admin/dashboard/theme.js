// The theme: the system's, unless somebody chose another, and then that one stays.
//
// Runs before the first paint, hence no module.
(() => {
  const KEY = 'conexus.theme';
  const CHOICES = ['system', 'light', 'dark'];

  function chosen() {
    try {
      const choice = localStorage.getItem(KEY);
      return CHOICES.includes(choice) ? choice : 'system';
    } catch {
      return 'system'; // Storage may be forbidden; the page is none the worse for it.
    }
  }

  function apply(choice) {
    document.documentElement.dataset.theme = choice;
  }

  function next() {
    const choice = CHOICES[(CHOICES.indexOf(document.documentElement.dataset.theme) + 1) % CHOICES.length];
    apply(choice);
    try { localStorage.setItem(KEY, choice); } catch { /* see above */ }
    return choice;
  }

  apply(chosen());
  window.conexusTheme = { next, current: () => document.documentElement.dataset.theme };
})();
