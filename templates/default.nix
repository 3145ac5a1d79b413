# The entry of nixprov's module: what configuration.nix imports.
{
  imports = [
    ./options.nix
    ./cache.nix
    ./daemon.nix
    ./engine.nix
    ./filter.nix
    ./network.nix
    ./runner.nix
  ];

  services.nixprov = import ./settings.nix;
}
