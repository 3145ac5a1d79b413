# The package set: a fixed point with overlays, as in nixpkgs.
{
  lib,
  system,
  config,
  overlays,
}: let
  base = final: {
    inherit lib config system overlays;
    path = ../.;
    pkgs = final;
    callPackage = package: args: let
      f =
        if lib.isFunction package
        then package
        else import package;
    in
      f (builtins.intersectAttrs (lib.functionArgs f) final // args);
    extend = overlay:
      import ./. {
        inherit lib system config;
        overlays = overlays ++ [overlay];
      };
    appendOverlays = more:
      import ./. {
        inherit lib system config;
        overlays = overlays ++ more;
      };
    hostPlatform = final.stdenv.hostPlatform;
    buildPlatform = final.stdenv.hostPlatform;
  };
  layers =
    [
      (final: _:
        import ./builders.nix {
          inherit lib system;
          pkgs = final;
        })
      (final: _:
        import ./debian.nix {
          inherit lib system;
          pkgs = final;
        })
      (final: _:
        import ./tools.nix {
          inherit lib system;
          pkgs = final;
        })
      (_: _: import ./unsupported.nix lib)
    ]
    ++ overlays;
in
  lib.fix (final: builtins.foldl' (pkgs: layer: pkgs // layer final pkgs) (base final) layers)
