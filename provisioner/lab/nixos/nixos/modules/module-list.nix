# NixOS' own modules, as far as the stand-in has them.
[
  ./assertions.nix
  ./environment.nix
  ./etc.nix
  ./gitlab-runner.nix
  ./inert.nix
  ./networking.nix
  ./nix.nix
  ./nixpkgs.nix
  ./openssh.nix
  ./security.nix
  ./systemd.nix
  ./tmpfiles.nix
  ./toplevel.nix
  ./users.nix
  ./virtualisation.nix
]
