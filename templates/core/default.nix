# The entry of nixprov's module, imported by configuration.nix.
{ config, lib, ... }:

let
  settings = import ./settings.nix;

  # The inventory's values override the module's defaults and a mkDefault (1000) of the host's own configuration. A plain
  # value (100) of that configuration overrides them.
  wish = lib.mapAttrs (_: lib.mkOverride 500);
  runner =
    _: said:
    { inherit (said) id tokenVersion; }
    // wish (removeAttrs said [ "id" "tokenVersion" "environment" ])
    // {
      environment = wish (said.environment or { });
    };

  # Without this warning, a change of the inventory would have no effect and no explanation.
  overruled =
    path: wanted: actual:
    lib.concatLists (
      lib.mapAttrsToList (
        name: value:
        let
          here = path ++ [ name ];
          counts = actual.${name} or value;
        in
        if builtins.isAttrs value then
          overruled here value counts
        else
          lib.optional (counts != value) (
            "nixprov: the inventory's ${lib.concatStringsSep "." here} (${builtins.toJSON value}) does not count:"
            + " the host's own configuration says ${builtins.toJSON counts}"
          )
      ) wanted
    );
in
{
  imports = [
    ./options.nix
    ./advisories.nix
    ./cache.nix
    ./counters.nix
    ./daemon.nix
    ./door.nix
    ./engine.nix
    ./filter.nix
    ./image.nix
    ./network.nix
    ./runner.nix
  ];

  services.nixprov = {
    inherit (settings) revision gitlabUrl;
    runners = lib.mapAttrs runner settings.runners;
    limits = wish (settings.limits or { });
    cache = wish (settings.cache or { });
  }
  // wish (
    lib.filterAttrs (
      name: _:
      lib.elem name [
        "acceptedAdvisories"
        "engine"
        "shareSocket"
        "trust"
      ]
    ) settings
  );

  warnings =
    overruled [ ] settings config.services.nixprov
    ++ lib.optional (config.services.nixprov.engine == "docker" && settings.limits or { } ? tasksPerContainer) (
      "nixprov: the inventory's limits.tasksPerContainer does not count in the host's Docker, and gitlab-runner has no such limit"
    );
}
