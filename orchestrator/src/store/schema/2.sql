-- Places of keys that are kept elsewhere and that no run has, or may not have: one that is about to be made, one that its run has forgotten.
-- Whoever finds one here that no run has destroys it there, and then removes it here.
CREATE TABLE elsewhere (
    place TEXT PRIMARY KEY,
    run TEXT NOT NULL
);
