# The entry of nixprov's module: what configuration.nix imports.
{
  imports = [
    ./options.nix
    ./daemon.nix
    ./engine.nix
    ./runner.nix
  ];

  services.nixprov = import ./settings.nix;
}
