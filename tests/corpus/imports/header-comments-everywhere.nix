/* one */ { # two
  pkgs, /* three ] */ ... # four }
}: /* five */ # six
/* seven */ { # eight
  /* nine */ imports /* ten */ = /* eleven */ [ /* twelve ] */
    # thirteen ];
    ./a.nix # fourteen
    /* fifteen */
  ] /* sixteen */ ; # seventeen
} # eighteen
