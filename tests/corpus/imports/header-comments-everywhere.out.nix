/* one */ { # two
  pkgs, /* three ] */ ... # four }
}: /* five */ # six
/* seven */ { # eight
  /* nine */ imports /* ten */ = /* eleven */ [ /* twelve ] */
    # thirteen ];
    ./a.nix # fourteen
    /* fifteen */
    (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) # nixprov: added by "nixprov up", removed by "nixprov down"
  ] /* sixteen */ ; # seventeen
} # eighteen
